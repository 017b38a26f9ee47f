"""Stage one of the agent-protocol-forwarder: everything that happens once, before the lean stage takes over.

Reads `apf.json`, makes the pod's interface in `podns`, writes the TLS files, and says which command serves the pod.
The lean stage then runs for the pod's life without any of the modules that this one needs.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError, InvalidInput, StateError
from caa.model.network import IPNetwork
from caa.userdata import forwarder as document
from caa.userdata import paths
from podvm import forwarder, linklocal, network, rewrites

_TLS_DIRECTORY = Path(paths.DIRECTORY, "tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The forwarder's flags, under the reference's names. "" and () mean "as `apf.json` says"."""

    agent_socket: str = forwarder.AGENT_SOCKET
    pod_namespace: str = rewrites.POD_NAMESPACE
    listen: str = forwarder.LISTEN
    config: str = paths.FORWARDER
    disable_tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    min_version: str = ""
    cipher_suites: tuple[str, ...] = ()
    allow_link_local: tuple[IPNetwork, ...] = ()
    tls_directory: Path = _TLS_DIRECTORY


def prepare(options: Options) -> list[str]:
    """Do it and return the lean stage's command line. Twice is once; a restarted forwarder comes here again.

    Raises `ConfigError` or `InvalidInput` (flags, `apf.json`), `NetworkError`, `DeadlineExceeded`, `StateError`.
    """
    config = document.parse(_read(Path(options.config)))
    flags = lean_flags(options, config.tls)
    if not options.disable_tls:
        _write_tls(options, config.tls)
    network.setup(options.pod_namespace, config.network, tunnel=config.tunnel)
    linklocal.deny(options.pod_namespace, (*config.allow_link_local, *options.allow_link_local))
    return forwarder.command(*flags)


def lean_flags(options: Options, tls: document.ServerTls) -> list[str]:
    """The lean stage's flags: the operator's files and profile where flags name them, else those of `apf.json`.

    Raises `ConfigError` when a certificate, its key or the clients' CA comes from nowhere.
    """
    flags = [
        f"-kata-agent-socket={options.agent_socket}",
        f"-pod-namespace={options.pod_namespace}",
        f"-listen={options.listen}",
        f"-served-file={options.tls_directory.parent / 'forwarder-served'}",
    ]
    if options.disable_tls:
        return [*flags, "-disable-tls"]
    files = tls_files(options)
    for flag, given, text in (
        ("ca-cert-file", options.ca_file, tls.client_ca),
        ("cert-file", options.cert_file, tls.cert),
        ("cert-key", options.key_file, tls.key),
    ):
        if not given and not text:
            raise ConfigError(f"neither -{flag} nor {options.config} has what TLS needs; give both ends certificates")
        flags.append(f"-{flag}={given or files[flag]}")
    flags.append(f"-tls-min-version={options.min_version or tls.min_version}")
    flags.append(f"-tls-cipher-suites={','.join(options.cipher_suites or tls.cipher_suites)}")
    return flags


def tls_files(options: Options) -> dict[str, Path]:
    """Where the PEM texts of `apf.json` are written, by the flag that names such a file."""
    directory = options.tls_directory
    return {
        "ca-cert-file": directory / "ca.crt",
        "cert-file": directory / "tls.crt",
        "cert-key": directory / "tls.key",
    }


def _write_tls(options: Options, tls: document.ServerTls) -> None:
    files = tls_files(options)
    for flag, text in (("ca-cert-file", tls.client_ca), ("cert-file", tls.cert), ("cert-key", tls.key)):
        if text:
            _write_private(files[flag], text)


def _write_private(file: Path, text: str) -> None:
    """Mode 0600 from the first byte on, in a folder of mode 0700; a file that is there is replaced."""
    new = file.with_suffix(".new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", newline="") as out:
            out.write(text)
        new.replace(file)
    except OSError as error:
        raise StateError(f"{file} cannot be written: {error.strerror}") from error


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return opened.read(document.MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidInput(f"{file} cannot be read: {reason}") from error
