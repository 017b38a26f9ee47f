"""The public key of a pod VM's administrator: an operator's, or one whose private half has never been anywhere."""

import stat
from pathlib import Path

from caa.errors import Misconfigured

# Azure wants a key where there is no password. This point of the curve is a hash of NOBODY_SEED and was never computed
# from a private key, so nobody can log in by it; the tests compute it again.
NOBODY_SEED = b"peerpods-caa: nobody has the private half of this key, 1"
NOBODY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM28+rai3QRVdT+VmaCaWAru7FjYeXJ++4a/IZ8JH8YA"


def read(path: Path) -> str:
    """The one public key in the file. Raises `Misconfigured`."""
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"AZURE_SSH_KEY_PATH (--ssh-key-path): {path} cannot be read ({type(error).__name__})"
        ) from error
    if mode != stat.S_IRUSR | stat.S_IWUSR:
        raise Misconfigured(f"AZURE_SSH_KEY_PATH (--ssh-key-path): {path} has mode {mode:04o}, it has to be 0600")
    if not text.startswith(("ssh-rsa ", "ssh-ed25519 ")) or "\n" in text:
        raise Misconfigured(
            f"AZURE_SSH_KEY_PATH (--ssh-key-path): {path} is not one public key of type ssh-rsa or ssh-ed25519"
        )
    return text
