"""Signing a UKI for Secure Boot with the deployer's key: which files, and what mkosi and ukify are told."""

from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError

_KEY, _CERTIFICATE = "secure-boot.key", "secure-boot.pem"
_FOLDER = "/out/keys"
# For mkosi; the firmware's keys are the deployer's matter, so nothing on the disk enrols one.
SIGNING = (
    "--secure-boot=yes", "--secure-boot-auto-enroll=no", "--secure-boot-sign-tool=sbsign",
    f"--secure-boot-key={_FOLDER}/{_KEY}", f"--secure-boot-certificate={_FOLDER}/{_CERTIFICATE}",
)  # fmt: skip
UKIFY = (
    "--signtool=sbsign", f"--secureboot-private-key={_FOLDER}/{_KEY}",
    f"--secureboot-certificate={_FOLDER}/{_CERTIFICATE}",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Private key and certificate, both PEM; the key without a pass phrase, as nobody is asked for one."""

    key: Path
    certificate: Path

    def copy(self, to: Path) -> None:
        """Where the build tree sees them, for root alone; whoever calls removes them. Raises `ConfigError`, and then
        nothing was written."""
        contents = {_KEY: _pem(self.key, b"PRIVATE KEY"), _CERTIFICATE: _pem(self.certificate, b"CERTIFICATE")}
        to.mkdir(mode=0o700)
        for name, content in contents.items():
            place = to / name
            place.touch(mode=0o600)
            place.write_bytes(content)


def _pem(file: Path, word: bytes) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in content or word not in content:
        raise ConfigError(f"{file} holds no {word.decode().lower()} in PEM")
    if b"ENCRYPTED" in content:
        raise ConfigError(f"{file} has a pass phrase: give a key without one (openssl pkey -in KEY -out PLAIN)")
    return content


def signer(key: Path | None, certificate: Path | None) -> Signer | None:
    """The signer for the options of the command line, both or none. Raises `ConfigError`."""
    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        raise ConfigError("Secure Boot needs both: --secure-boot-key and --secure-boot-certificate")
    return Signer(key=key, certificate=certificate)
