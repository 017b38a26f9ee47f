"""Certificates of the link between relay and pod VM: the node's own CA, or files that an operator gives.

Both classes answer the same questions, so the rest of the node does not care which one it has: which files the relay
loads, under which name a pod VM's server is known, and what goes into its apf.json.

The node's own CA has generations. A pod VM trusts the one that was current when it was made, and no other, for its
whole life; so the node keeps each generation as long as a pod VM of it lives, and has a client certificate of each.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from cryptography import x509

from caa.errors import ConfigError, StateError
from caa.wire import pki
from caa.wire.expiry import Expiry
from caa.wire.generations import CLIENT_ORGANISATION, Generations, replace

SERVER_ORGANISATION = "agent-protocol-forwarder"
MANUAL_SERVER_NAME = "podvm-server"  # the one name in certificates that operators make (reference/podvm.md 2.1)
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
    """What the node asks of its certificates; raises `StateError` or `ConfigError`.

    `ca` names a generation of the CA, as a record has it; "" is the oldest one.
    """

    def current(self) -> str:
        """The generation for the next pod VM, "" where there are none."""

    def client_files(self, ca: str) -> TlsFiles:
        """The files for the relay, renewed if that is due; it reads them at each dial."""

    def generation_of(self, ca_file: str) -> str:
        """The generation to which a file of `client_files` belongs, "" for none."""

    def server_name(self, instance_name: str) -> str:
        """The name that the pod VM's certificate has to bear."""

    def server_identity(self, instance_name: str, ca: str) -> ServerIdentity:
        """A fresh key and certificate for one pod VM, in memory only."""

    def expiries(self) -> Sequence[Expiry]:
        """When the certificates that are ours end; those that cannot be read raise."""


class NodeAuthority:
    """One CA per node, in generations, kept in `<state dir>/tls` (`caa.wire.generations`).

    Everything is read from there at each use, so that what another process rotates counts at once. A client
    certificate is replaced by one rename: the relay, which loads it at any time, never sees halves of two.
    """

    def __init__(self, generations: Generations, *, clock: Clock, client_lifetime: timedelta) -> None:
        self.generations = generations
        self._clock = clock
        self._client_lifetime = client_lifetime

    @classmethod
    def load_or_create(
        cls, state_dir: Path, *, clock: Clock = utc_now, client_lifetime: timedelta = CLIENT_LIFETIME
    ) -> "NodeAuthority":
        """Load the node's CA, or make it when there is none.

        Two processes that start at once end with the same CA; one that has expired gets a successor. Raises
        `StateError` when a file of the current generation is missing, broken, or readable by others.
        """
        Generations(state_dir).begin(clock())
        authority = cls.load(state_dir, clock=clock, client_lifetime=client_lifetime)
        if authority.certificate(authority.current()).not_valid_after_utc <= clock():
            authority.generations.add(clock())
        return authority

    @classmethod
    def load(
        cls, state_dir: Path, *, clock: Clock = utc_now, client_lifetime: timedelta = CLIENT_LIFETIME
    ) -> "NodeAuthority":
        """Only look at a node's CA; raises `StateError` where there is none."""
        generations = Generations(state_dir)
        if not generations.exist():
            raise StateError(
                f"there is no CA in {generations.root}: caa node makes it at its first start. Is CAA_STATE_DIR right?"
            )
        return cls(generations, clock=clock, client_lifetime=client_lifetime)

    @property
    def ca_pem(self) -> str:
        """The current CA's certificate: what both ends of a new pod VM's link verify the other by."""
        return self.generations.load(self.current(), self._clock()).cert_pem

    def current(self) -> str:
        """The newest generation."""
        return self.generations.names()[-1]

    def client_files(self, ca: str = "") -> TlsFiles:
        """The relay's files; the client certificate is made anew when a third of its life or less is left."""
        folder = self.generations.folder(ca)
        if self._left(ca) <= self._client_lifetime / 3:
            self.issue_client(ca)
        client = str(folder / "client.pem")
        return TlsFiles(str(folder / "ca.crt"), client, client)

    def generation_of(self, ca_file: str) -> str:
        """By the folder that the file is in."""
        names = self.generations.names()
        return next((name for name in names if ca_file == str(self.generations.folder(name) / "ca.crt")), "")

    def server_name(self, instance_name: str) -> str:
        """The pod VM's own name: each has a certificate of its own."""
        return instance_name

    def server_identity(self, instance_name: str, ca: str = "") -> ServerIdentity:
        """A P-256 key (PKCS#8) and a certificate for this name, valid for two years."""
        authority = self.generations.load(ca, self._clock())
        profile = pki.Profile(SERVER_ORGANISATION, instance_name, lifetime=SERVER_LIFETIME, server=True)
        leaf = pki.issue(authority, profile, now=self._clock())
        return ServerIdentity(authority.cert_pem, leaf.cert_pem, leaf.key_pem)

    def issue_client(self, ca: str) -> None:
        """Make a generation's client certificate anew, with issuer and subject as before: sessions know it by them."""
        authority = self.generations.load(ca, self._clock())
        profile = pki.Profile(CLIENT_ORGANISATION, CLIENT_ORGANISATION, lifetime=self._client_lifetime, server=False)
        client = pki.issue(authority, profile, now=self._clock())
        path = self.generations.folder(ca) / "client.pem"
        try:
            replace(path, client.cert_pem + client.key_pem)
        except OSError as error:
            raise StateError(f"cannot write the client certificate {path}: {error.strerror}") from error

    def certificate(self, ca: str) -> x509.Certificate:
        """The certificate of a generation, expired or not."""
        return self.generations.load(ca, datetime.min.replace(tzinfo=UTC)).certificate

    def server_ends(self, ca: str, made: datetime) -> datetime:
        """When the certificate of a pod VM ends that was made at `made` or later."""
        return min(made + SERVER_LIFETIME, self.certificate(ca).not_valid_after_utc)

    def rotation_due(self, age: timedelta) -> bool:
        """Whether the current CA has this age, or would end before a certificate that it signs now."""
        ca, now = self.certificate(self.current()), self._clock()
        return now - ca.not_valid_before_utc >= age or ca.not_valid_after_utc - now <= SERVER_LIFETIME

    def retirable(self, grace: timedelta) -> list[str]:
        """The generations whose successor is older than `grace`: no pod VM is made under them any more."""
        names, now = self.generations.names(), self._clock()
        pairs = pairwise(names)
        begun = {name: self.certificate(after).not_valid_before_utc + pki.CLOCK_SKEW for name, after in pairs}
        return [name for name, since in begun.items() if now - since >= grace]

    def expiries(self) -> Sequence[Expiry]:
        """Of each generation its CA and its client certificate; what cannot be read is left out."""
        found: list[Expiry] = []
        for name in self.generations.names():
            with suppress(StateError):
                found.append(_expiry(f"CA {name}", self.certificate(name), remedy=self._ca_remedy(name)))
            client = self._client(name)
            if client is not None:
                found.append(_expiry(f"client certificate of CA {name}", client, remedy=_CLIENT_REMEDY))
        return found

    def _ca_remedy(self, name: str) -> str:
        return _CURRENT_CA_REMEDY if name == self.current() else _OLD_CA_REMEDY

    def _client(self, ca: str) -> x509.Certificate | None:
        try:
            return pki.load((self.generations.folder(ca) / "client.pem").read_text()).certificate
        except (OSError, ValueError):
            return None

    def _left(self, ca: str) -> timedelta:
        """How long the client certificate on disk is good; nothing when missing, broken, too new or of another CA."""
        client, now = self._client(ca), self._clock()
        authority = self.generations.load(ca, now)
        if client is None or client.not_valid_before_utc > now or not pki.issued_by(client, authority):
            return timedelta(0)
        return min(client.not_valid_after_utc - pki.CLOCK_SKEW - now, self._client_lifetime)


class ManualCertificates:
    """`CACERT_FILE`, `CERT_FILE` and `CERT_KEY` as an operator gave them; the pod VM image holds the server's side."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files

    @classmethod
    def load(cls, ca_file: Path | None, cert_file: Path, *, key_file: Path) -> "ManualCertificates":
        """Check that the files can be read and belong together; raises `ConfigError`, naming the setting.

        Without `ca_file` (TLS_SKIP_VERIFY) servers are not verified.
        """
        cert, key = _operator_file("CERT_FILE", cert_file), _operator_file("CERT_KEY", key_file)
        if ca_file:
            _certificates("CACERT_FILE", ca_file)
        _certificates("CERT_FILE", cert_file)
        try:
            pki.load(cert + "\n" + key)
        except ValueError:
            raise ConfigError(
                f"CERT_KEY: {key_file} holds no private key (PEM, without a password) that fits CERT_FILE {cert_file}"
            ) from None
        return cls(TlsFiles(str(ca_file or ""), str(cert_file), str(key_file)))

    def current(self) -> str:
        """The operator's CA has no generations that we know of."""
        return ""

    def client_files(self, ca: str = "") -> TlsFiles:  # noqa: ARG002
        """The operator's files; whoever made them renews them."""
        return self._files

    def generation_of(self, ca_file: str) -> str:  # noqa: ARG002
        """None."""
        return ""

    def server_name(self, instance_name: str) -> str:  # noqa: ARG002  # one name for all
        """The fixed name in the image's certificate."""
        return MANUAL_SERVER_NAME

    def server_identity(self, instance_name: str, ca: str = "") -> ServerIdentity:  # noqa: ARG002  # the image has it
        """The CA by which the forwarder verifies us, as the file is now, and nothing secret."""
        ca_file = self._files.ca_file
        return ServerIdentity(_operator_file("CACERT_FILE", Path(ca_file)) if ca_file else "")

    def expiries(self) -> Sequence[Expiry]:
        """Every certificate of CACERT_FILE, and ours."""
        files = self._files
        cas = _certificates("CACERT_FILE", Path(files.ca_file)) if files.ca_file else []
        client = _certificates("CERT_FILE", Path(files.cert_file))[0]
        found = [_expiry(f"CACERT_FILE {files.ca_file} ({_name(ca)})", ca, remedy=_RENEW_CA) for ca in cas]
        return [*found, _expiry(f"CERT_FILE {files.cert_file}", client, remedy=_RENEW_CLIENT)]


_CURRENT_CA_REMEDY = "run: caa certs rotate ca; with CAA_CA_ROTATION it is done by itself, in time"
_OLD_CA_REMEDY = "restart the pods whose pod VMs were made under it: new ones get the current CA"
_CLIENT_REMEDY = "caa node renews it while it runs: see its log for why it did not, then run: caa certs rotate client"
_RENEW_CA = "put the new CA into the file beside this one, then renew the certificates that it signs"
_RENEW_CLIENT = (
    "replace the files, with the same issuer and subject: sessions of running pods are bound to them; the relay reads "
    "them at its next dial"
)


def _expiry(subject: str, certificate: x509.Certificate, *, remedy: str) -> Expiry:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Expiry(subject=subject, begins=begins, ends=ends, remedy=remedy)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:100]


def _operator_file(setting: str, path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{setting}: {path} cannot be read: {reason}") from error


def _certificates(setting: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_operator_file(setting, path).encode())
    except ValueError:
        raise ConfigError(f"{setting}: {path} holds no certificate in PEM form") from None
