"""User data on a config drive: libvirt, BYOM, IBM, smoke tests, and the local provider.

Two ways: the folder where the image or an operator put the file (`NoCloud`), and the drive itself (`ConfigDrive`),
which is read here because a kernel may have neither iso9660 nor vfat.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from caa.errors import InvalidInput, Unavailable
from podvm.clouds import fat, iso9660
from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine
from podvm.clouds.volume import FILE_LIMIT, Volume, VolumeError

FILE = Path("/media/cidata/user-data")
# label in lower case -> the file (cloud-init's NoCloud; OpenStack's config drive, which PowerVS uses)
_FILES = MappingProxyType({"cidata": "user-data", "config-2": "openstack/latest/user_data"})
# RAM disks, loop devices, mapped and network devices hold no config drive of a VM, and reading some of them hangs.
_READERS: tuple[tuple[Callable[[Volume], str], Callable[[Volume, str], bytes | None]], ...] = (
    (iso9660.label, iso9660.read),
    (fat.label, fat.read),
)
_NEVER = ("ram", "loop", "dm-", "nbd", "zram", "md", "fd")


class NoCloud:
    """The file `user-data` in the folder where a drive labelled `cidata` is mounted, or its files are put."""

    name = "nocloud"

    def __init__(self, file: Path = FILE) -> None:
        self._file = file

    def present(self) -> bool:
        """Whether the file is there."""
        return self._file.is_file()

    def fetch(self, _seconds: float) -> bytes:
        """The file as it is; a folder needs no encoding."""
        try:
            with self._file.open("rb") as file:
                content = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise InvalidInput(f"user data {self._file} cannot be read: {error.strerror}") from error
        if len(content) > FILE_LIMIT:
            raise InvalidInput(f"user data {self._file} is larger than {FILE_LIMIT} bytes")
        return content


class ConfigDrive:
    """A disk whose file system is labelled `cidata` or `config-2`, as ISO 9660 or FAT."""

    name = "configdrive"

    def __init__(self, machine: Machine) -> None:
        self._root = machine.root

    def present(self) -> bool:
        """Whether there is such a disk."""
        return any(True for _ in self._drives())

    def fetch(self, _seconds: float) -> bytes:
        """The document. Raises `InvalidInput` when two disks claim to be the drive: one may be a pod's volume."""
        drives = list(self._drives())
        if not drives:
            raise Unavailable("the config drive is gone")
        if len(drives) > 1:
            names = ", ".join(str(device) for device, _ in drives)
            raise InvalidInput(f"more than one disk is labelled as a config drive ({names}): relabel the volume")
        device, label = drives[0]
        document = _document(device, _FILES[label])
        return plain(document, f"config drive {device}")

    def _drives(self) -> Iterator[tuple[Path, str]]:
        """Each device with such a label, in the order of their names."""
        blocks = self._root / "sys/class/block"
        for block in sorted(blocks.iterdir()) if blocks.is_dir() else ():
            device = self._root / "dev" / block.name
            if block.name.startswith(_NEVER) or _is_empty(block):
                continue
            if (label := _label(device)) in _FILES:
                yield device, label


def _is_empty(block: Path) -> bool:
    """A drive without a medium."""
    try:
        return (block / "size").read_text().strip() == "0"
    except OSError:
        return True


def _label(device: Path) -> str:
    for label_of, _ in _READERS:
        with suppress(OSError, VolumeError), device.open("rb") as file:
            return label_of(Volume(file)).lower()
    return ""


def _document(device: Path, path: str) -> bytes:
    problem = ""
    for label_of, read in _READERS:
        try:
            with device.open("rb") as file:
                label_of(Volume(file))
                found = read(Volume(file), path)
        except (OSError, VolumeError) as error:
            problem = str(error) if label_of is iso9660.label or not problem else problem
            continue
        if found is None:
            raise InvalidInput(f"config drive {device} has no file {path}")
        return found
    raise InvalidInput(f"config drive {device} cannot be read: {problem}")
