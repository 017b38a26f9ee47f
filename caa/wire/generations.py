"""The node's CA on disk, one folder a generation: made whole, loaded with care, removed without a trace. No policy.

The first generation lies in `<state dir>/tls` itself, where it was before there were others, and where relays that run
look for it; later ones in `tls/2`, `tls/3` and so on. Each has ca.crt, ca.key, and client.pem (certificate and key of
our client). Folders have mode 0700, files 0600. Numbers are never used again: the newest generation is never removed.
"""

import os
import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path

from caa.errors import StateError
from caa.wire import pki

FIRST = "1"
CA_LIFETIME = timedelta(days=3650)
CLIENT_ORGANISATION = "cloud-api-adaptor"
_CA_FILES = ("ca.crt", "ca.key")
_FILES = ("client.pem", "ca.key", "ca.crt")  # in the order in which they are removed


class Generations:
    """The folder with all generations of one node's CA. Methods raise `StateError`."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.root = state_dir / "tls"

    def exist(self) -> bool:
        """Whether the node has ever had a CA."""
        return self.root.is_dir()

    def names(self) -> list[str]:
        """All generations, the oldest first; the last one is that of new pod VMs."""
        try:
            later = sorted((one.name for one in self.root.iterdir() if _is_number(one.name) and one.is_dir()), key=int)
        except OSError as error:
            raise _cannot(self.root, error) from error
        first = not later or any((self.root / name).exists() for name in _CA_FILES)
        return [*([FIRST] if first else []), *later]

    def folder(self, name: str) -> Path:
        """Where a generation lies; "" is the oldest one. It must exist."""
        names = self.names()
        if name and name not in names:
            raise StateError(
                f"generation {name} of the node's CA is not in {self.root} any more, and a pod VM that was made under "
                "it cannot be reached without: restore the folder from a backup, or restart the pod"
            )
        chosen = name or names[0]
        return self.root if chosen == FIRST else self.root / chosen

    def begin(self, now: datetime) -> None:
        """Make the first generation, unless there is one. Two processes that do so at once end with the same."""
        if not self.exist():
            try:
                self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise _cannot(self.root, error) from error
            self._make(self.root, FIRST, now=now)

    def add(self, now: datetime) -> str:
        """Make the next generation and tell its name; again, two at once end with the same."""
        name = str(int(self.names()[-1]) + 1)
        self._make(self.root / name, name, now=now)
        return name

    def load(self, name: str, now: datetime) -> pki.Identity:
        """Certificate and key of one generation, which must be sound, secret and not expired."""
        folder = self.folder(name)
        try:
            authority = _load(folder)
        except OSError as error:
            raise _cannot(folder, error) from error
        if authority.certificate.not_valid_after_utc <= now:
            raise unusable(folder, f"it expired on {authority.certificate.not_valid_after_utc:%Y-%m-%d}")
        return authority

    def remove(self, name: str) -> None:
        """Remove a generation, key first; one that is absent is fine."""
        try:
            if name == FIRST:
                for file in _FILES:
                    (self.root / file).unlink(missing_ok=True)
            elif (self.root / name).exists():
                (self.root / name).rename(self.root / f".old.{os.urandom(4).hex()}")
            for left in self.root.glob(".old.*"):
                shutil.rmtree(left)
            _sync_folder(self.root)
        except OSError as error:
            raise _cannot(self.root, error) from error

    def _make(self, folder: Path, name: str, *, now: datetime) -> None:
        """Make the folder whole under another name, then rename it: there is never half a CA, and never two."""
        made = folder.parent / f".tls.{os.urandom(4).hex()}"
        title = "peer pods node CA" if name == FIRST else f"peer pods node CA {name}"
        try:
            made.mkdir(mode=0o700)
            authority = pki.create_authority(CLIENT_ORGANISATION, title, lifetime=CA_LIFETIME, now=now)
            replace(made / "ca.key", authority.key_pem)
            replace(made / "ca.crt", authority.cert_pem)
            _rename(made, folder)
            _sync_folder(folder.parent)
        except OSError as error:
            raise _cannot(folder, error) from error


def replace(path: Path, text: str) -> None:
    """Write with mode 0600, on disk before it has its name; who reads the old file never sees a part. `OSError`."""
    made = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    made.replace(path)
    _sync_folder(path.parent)


def unusable(folder: Path, problem: str) -> StateError:
    """Why a CA cannot be used, and what to do about it."""
    return StateError(
        f"the node's CA in {folder} cannot be used: {problem}. Restore the folder from a backup; or, once no pod VM of "
        "this node runs (they trust only this CA), remove the folder, and a new CA is made at the next start"
    )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and name != FIRST


def _rename(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        shutil.rmtree(made)
        if not folder.is_dir():
            raise


def _load(folder: Path) -> pki.Identity:
    for name in _CA_FILES:
        if not (folder / name).is_file():
            raise unusable(folder, f"{name} is missing")
    if stat.S_IMODE((folder / "ca.key").stat().st_mode) & 0o077:
        raise StateError(f"{folder / 'ca.key'} can be read by others: find out why, then run chmod 600 on it")
    try:
        return pki.load((folder / "ca.crt").read_text() + (folder / "ca.key").read_text())
    except ValueError:
        raise unusable(folder, "ca.crt and ca.key are damaged or do not belong together") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(folder: Path, error: OSError) -> StateError:
    return StateError(f"cannot keep the node's CA in {folder}: {error.strerror}")
