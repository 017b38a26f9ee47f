"""Which disk of the pod VM a volume is, and what is on it: a file system, LUKS2, or nothing at all."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from caa.errors import InvalidInput, StateError

_PATH = re.compile(r"/dev/[a-z][a-z0-9]{1,15}")
_AZURE = "dev/disk/azure/data/by-lun"  # udev rules of Azure's agent
_SERIALS = ("serial", "device/serial", "wwid", "device/wwid")  # virtio-blk, NVMe, NVMe and SCSI
_IN_ORDER = "caa-data-"  # the serial numbers that our libvirt driver gives, before the place among the pod's volumes
_SHORT = 20  # virtio-blk has room for so many bytes of a serial number
_HEAD, _TAIL = 1 << 20, 1 << 16  # bytes that have to be zero for a disk to count as blank
_EXTENTS, _JOURNAL = 0x40, 0x4


class Content(StrEnum):
    """What a disk holds."""

    BLANK = "blank"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    LUKS2 = "luks2"
    OTHER = "something else"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the worker names a disk: Azure's LUN (None for none) and the cloud's disk id, or a path in `/dev`."""

    disk_id: str = ""
    lun: int | None = None


def find(wanted: Wanted, root: Path = Path("/")) -> Path | None:
    """The device; None when it is not there (yet). Raises `InvalidInput` when several disks fit."""
    if wanted.disk_id.startswith("/dev/"):
        if not _PATH.fullmatch(wanted.disk_id):
            raise InvalidInput(f"{wanted.disk_id[:80]!r} is not the path of a disk")
        device = root / wanted.disk_id.lstrip("/")
        return device if device.exists() else None
    if wanted.lun is not None and (device := root / _AZURE / str(wanted.lun)).exists():
        return device.resolve()
    found = {device for device in _disks(root) if _fits(device, wanted)}
    if len(found) > 1:
        names = ", ".join(sorted(device.name for device in found))
        raise InvalidInput(f"several disks fit {wanted.disk_id or f'LUN {wanted.lun}'}: {names}")
    return root / "dev" / found.pop().name if found else None


def _disks(root: Path) -> Iterator[Path]:
    """Every whole disk, as its folder in sysfs."""
    blocks = root / "sys/class/block"
    for block in sorted(blocks.iterdir()) if blocks.is_dir() else ():
        if not (block / "partition").exists() and not block.name.startswith(("loop", "ram", "dm-", "sr", "zram")):
            yield block


def _fits(block: Path, wanted: Wanted) -> bool:
    """By serial number, the id's or that of its place; by LUN where the id is Azure's, which no disk shows, or where
    there is none."""
    if wanted.disk_id and any(_same(text, wanted.disk_id) for text in _texts(block)):
        return True
    if wanted.lun is not None and f"{_IN_ORDER}{wanted.lun}" in _texts(block):
        return True
    by_lun = not wanted.disk_id or wanted.disk_id.startswith("/subscriptions/")
    return by_lun and wanted.lun is not None and _lun(block) == wanted.lun


def _texts(block: Path) -> Iterator[str]:
    for name in _SERIALS:
        try:
            yield (block / name).read_text(errors="replace").strip(" \0\n")
        except OSError:
            continue


def _same(serial: str, disk_id: str) -> bool:
    """EBS leaves the dash out of `vol-0123`, Azure's id is a path, virtio cuts; a WWID has its kind in front."""
    wanted = disk_id.rpartition("/")[2]
    if not serial or not wanted:
        return False
    if serial in (wanted, wanted[:_SHORT]) or serial.endswith((f".{wanted}", f"_{wanted}", f" {wanted}")):
        return True
    return serial.replace("-", "").lower() == wanted.replace("-", "").lower()


def _lun(block: Path) -> int | None:
    """The last number of a SCSI disk's host:channel:target:lun; disks of the first host are the VM's own on Azure."""
    address = (block / "device").resolve().name.split(":")
    numbers = [int(part) for part in address if part.isdigit()]
    return numbers[3] if len(numbers) == 4 and numbers[0] else None


def content(device: Path) -> Content:
    """What is on a disk. Blank is only what is zero at its beginning and its end. Raises `StateError`."""
    try:
        with device.open("rb") as disk:
            head = disk.read(_HEAD)
            size = disk.seek(0, 2)
            disk.seek(max(size - _TAIL, 0))
            tail = disk.read(_TAIL)
    except OSError as error:
        raise StateError(f"the disk {device} cannot be read: {error.strerror}") from error
    if not size:
        raise StateError(f"the disk {device} has no room at all")
    return _known(head) or (Content.OTHER if any(head) or any(tail) else Content.BLANK)


def _known(head: bytes) -> Content | None:
    if head[:4] == b"XFSB":
        return Content.XFS
    if head[:6] == b"LUKS\xba\xbe" and head[6:8] == b"\0\2":
        return Content.LUKS2
    if head[1080:1082] == b"\x53\xef":
        compatible, incompatible = (int.from_bytes(head[at : at + 4], "little") for at in (1116, 1120))
        if incompatible & _EXTENTS:
            return Content.EXT4
        return Content.EXT3 if compatible & _JOURNAL else Content.OTHER
    return None
