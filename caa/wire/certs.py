"""Certificates of the link between relay and pod VM: the node's own CA, or files that an operator gives.

Both classes answer the same questions, so the rest of the node does not care which one it has: which files the relay
loads, under which name a pod VM's server is known, and what goes into its apf.json.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509

from caa.errors import ConfigError, StateError
from caa.wire import pki

SERVER_ORGANISATION = "agent-protocol-forwarder"
CLIENT_ORGANISATION = "cloud-api-adaptor"
MANUAL_SERVER_NAME = "podvm-server"  # the one name in certificates that operators make (reference/podvm.md 2.1)
CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=730)  # as the reference; a pod VM lives as long as its pod
CLIENT_LIFETIME = timedelta(hours=24)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths for the relay: CA of the servers ("" when they are not verified), our certificate, its key."""

    ca_file: str
    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """PEM texts for a pod VM's apf.json; `cert` and `key` are "" when the image brings its own."""

    client_ca: str
    cert: str = ""
    key: str = field(default="", repr=False)


class Certificates(Protocol):
    """What the node asks of its certificates; raises `StateError` or `ConfigError`."""

    def client_files(self) -> TlsFiles:
        """The files for the relay, renewed if that is due; they stay valid for at least `renew_in()` seconds."""

    def renew_in(self) -> float | None:
        """Seconds until `client_files` should be asked again, None for never."""

    def server_name(self, instance_name: str) -> str:
        """The name that the pod VM's certificate has to bear."""

    def server_identity(self, instance_name: str) -> ServerIdentity:
        """A fresh key and certificate for one pod VM, in memory only."""


class NodeAuthority:
    """One CA per node, made once and kept in `<state dir>/tls`: ca.crt, ca.key, and client.pem (certificate and key).

    The folder has mode 0700, the keys 0600. The client certificate is replaced by one rename, so that the relay, which
    loads it at any time, never sees halves of two.
    """

    def __init__(self, folder: Path, identity: pki.Identity, *, clock: Clock, client_lifetime: timedelta) -> None:
        self._folder = folder
        self._ca = identity
        self._clock = clock
        self._client_lifetime = client_lifetime

    @classmethod
    def load_or_create(
        cls, state_dir: Path, *, clock: Clock = utc_now, client_lifetime: timedelta = CLIENT_LIFETIME
    ) -> "NodeAuthority":
        """Load the node's CA, or make it when there is none.

        Two processes that start at once end with the same CA. Raises `StateError` when a file is missing, broken,
        readable by others, or when the CA has expired: pod VMs that run know only this CA, so it is never replaced.
        """
        folder = state_dir / "tls"
        try:
            if not folder.is_dir():
                _create_authority(state_dir, clock())
            identity = _load_authority(folder, clock())
        except OSError as error:
            raise StateError(f"cannot keep the node's CA in {folder}: {error.strerror}") from error
        return cls(folder, identity, clock=clock, client_lifetime=client_lifetime)

    @property
    def ca_pem(self) -> str:
        """The CA's certificate: what both ends verify the other by."""
        return self._ca.cert_pem

    def client_files(self) -> TlsFiles:
        """The relay's files; the client certificate is made anew when a third of its life or less is left."""
        if self._left() <= self._client_lifetime / 3:
            self._issue_client()
        client = str(self._folder / "client.pem")
        return TlsFiles(str(self._folder / "ca.crt"), client, client)

    def renew_in(self) -> float:
        """Seconds until the client certificate is due; 0 when it is."""
        return max((self._left() - self._client_lifetime / 3).total_seconds(), 0.0)

    def server_name(self, instance_name: str) -> str:
        """The pod VM's own name: each has a certificate of its own."""
        return instance_name

    def server_identity(self, instance_name: str) -> ServerIdentity:
        """A P-256 key (PKCS#8) and a certificate for this name, valid for two years from five minutes ago."""
        leaf = pki.issue(
            self._ca,
            pki.Profile(SERVER_ORGANISATION, instance_name, lifetime=SERVER_LIFETIME, server=True),
            now=self._clock(),
        )
        return ServerIdentity(self.ca_pem, leaf.cert_pem, leaf.key_pem)

    def _left(self) -> timedelta:
        """How long the client certificate on disk is good; nothing when missing, broken, too new or of another CA."""
        try:
            client = pki.load((self._folder / "client.pem").read_text()).certificate
        except (OSError, ValueError):
            return timedelta(0)
        now = self._clock()
        if client.not_valid_before_utc > now or not pki.issued_by(client, self._ca):
            return timedelta(0)
        return min(client.not_valid_after_utc - now, self._client_lifetime)

    def _issue_client(self) -> None:
        profile = pki.Profile(CLIENT_ORGANISATION, CLIENT_ORGANISATION, lifetime=self._client_lifetime, server=False)
        client = pki.issue(self._ca, profile, now=self._clock())
        _replace(self._folder / "client.pem", client.cert_pem + client.key_pem)


class ManualCertificates:
    """`CACERT_FILE`, `CERT_FILE` and `CERT_KEY` as an operator gave them; the pod VM image holds the server's side."""

    def __init__(self, files: TlsFiles, client_ca: str) -> None:
        self._files = files
        self._client_ca = client_ca

    @classmethod
    def load(cls, ca_file: Path | None, cert_file: Path, *, key_file: Path) -> "ManualCertificates":
        """Check that the files can be read and belong together; raises `ConfigError`, naming the setting.

        Without `ca_file` (TLS_SKIP_VERIFY) servers are not verified.
        """
        ca = _operator_file("CACERT_FILE", ca_file) if ca_file else ""
        cert, key = _operator_file("CERT_FILE", cert_file), _operator_file("CERT_KEY", key_file)
        if ca_file:
            _require_certificates("CACERT_FILE", ca, path=ca_file)
        _require_certificates("CERT_FILE", cert, path=cert_file)
        try:
            pki.load(cert + "\n" + key)
        except ValueError:
            raise ConfigError(
                f"CERT_KEY: {key_file} holds no private key (PEM, without a password) that fits CERT_FILE {cert_file}"
            ) from None
        return cls(TlsFiles(str(ca_file or ""), str(cert_file), str(key_file)), ca)

    def client_files(self) -> TlsFiles:
        """The operator's files; whoever made them renews them."""
        return self._files

    def renew_in(self) -> None:
        """Never: we do not renew what an operator made."""

    def server_name(self, instance_name: str) -> str:  # noqa: ARG002  # one name for all
        """The fixed name in the image's certificate."""
        return MANUAL_SERVER_NAME

    def server_identity(self, instance_name: str) -> ServerIdentity:  # noqa: ARG002  # the image has its own
        """The CA by which the forwarder verifies us, and nothing secret."""
        return ServerIdentity(self._client_ca)


def _create_authority(state_dir: Path, now: datetime) -> None:
    """Make the folder whole under another name, then rename it: there is never half a CA, and never two."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = state_dir / f".tls.{os.getpid()}.{os.urandom(4).hex()}"
    made.mkdir(mode=0o700)
    authority = pki.create_authority(CLIENT_ORGANISATION, "peer pods node CA", lifetime=CA_LIFETIME, now=now)
    _replace(made / "ca.key", authority.key_pem)
    _replace(made / "ca.crt", authority.cert_pem)
    try:
        made.rename(state_dir / "tls")
    except OSError:
        (made / "ca.key").unlink()
        (made / "ca.crt").unlink()
        made.rmdir()
        if not (state_dir / "tls").is_dir():
            raise
    _sync_folder(state_dir)


def _load_authority(folder: Path, now: datetime) -> pki.Identity:
    for name in ("ca.crt", "ca.key"):
        if not (folder / name).is_file():
            raise _unusable(folder, f"{name} is missing")
    if stat.S_IMODE((folder / "ca.key").stat().st_mode) & 0o077:
        raise StateError(f"{folder / 'ca.key'} can be read by others: find out why, then run chmod 600 on it")
    try:
        authority = pki.load((folder / "ca.crt").read_text() + (folder / "ca.key").read_text())
    except ValueError:
        raise _unusable(folder, "ca.crt and ca.key are damaged or do not belong together") from None
    if authority.certificate.not_valid_after_utc <= now:
        raise _unusable(folder, f"it expired on {authority.certificate.not_valid_after_utc:%Y-%m-%d}")
    return authority


def _unusable(folder: Path, problem: str) -> StateError:
    return StateError(
        f"the node's CA in {folder} cannot be used: {problem}. Restore the folder from a backup; or, once no pod VM of "
        "this node runs (they trust only this CA), remove the folder, and a new CA is made at the next start"
    )


def _operator_file(setting: str, path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{setting}: {path} cannot be read: {reason}") from error


def _require_certificates(setting: str, pem: str, *, path: Path) -> None:
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ConfigError(f"{setting}: {path} holds no certificate in PEM form") from None


def _replace(path: Path, text: str) -> None:
    """Write with mode 0600, on disk before it has its name."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    made.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
