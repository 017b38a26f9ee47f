"""Reads a file out of an ISO 9660 image: config drives, on kernels that have no such file system.

ECMA-119 (the image), Rock Ridge `NM` entries and Joliet (names such as `user-data`, which plain ISO 9660 cannot have).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from podvm.clouds.volume import FILE_LIMIT, FOLDER_LIMIT, Volume, VolumeError

_SECTOR = 2048
_FIRST_DESCRIPTOR = 16  # sector; the last one is of type 255
_MOST_DESCRIPTORS = 32
_JOLIET = (b"%/@", b"%/C", b"%/E")
_FOLDER, _CONTINUED = 2, 128  # bits of a record's flags
_HEAD = 33  # bytes of a directory record before its name


@dataclass(frozen=True, slots=True)
class _Record:
    name: str
    start: int  # byte
    size: int
    flags: int


def label(volume: Volume) -> str:
    """The volume's label. Raises `VolumeError` when this is no ISO 9660 image."""
    primary, _ = _descriptors(volume)
    return primary[40:72].decode("ascii", "replace").rstrip(" \0")


def read(volume: Volume, path: str) -> bytes | None:
    """The file at `path`, such as `openstack/latest/user_data`; None when there is none. Raises `VolumeError`.

    Names compare without regard to case; Rock Ridge names come first, then Joliet's, then plain ones.
    """
    primary, joliet = _descriptors(volume)
    found = _find(volume, primary, path=path, joliet=False)
    if found is None and joliet is not None:
        found = _find(volume, joliet, path=path, joliet=True)
    if found is None:
        return None
    if found.size > FILE_LIMIT or found.flags & _CONTINUED:
        raise VolumeError(f"{path} is larger than {FILE_LIMIT} bytes")
    return volume.read(found.start, found.size)


def _descriptors(volume: Volume) -> tuple[bytes, bytes | None]:
    """The primary volume descriptor, and Joliet's where there is one."""
    primary = joliet = None
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MOST_DESCRIPTORS):
        sector = volume.read(number * _SECTOR, _SECTOR)
        if sector[1:6] != b"CD001":
            raise VolumeError("it is no ISO 9660 image")
        if sector[0] == 255:
            break
        if sector[0] == 1 and primary is None:
            primary = sector
        if sector[0] == 2 and sector[88:91] in _JOLIET:
            joliet = sector
    if primary is None:
        raise VolumeError("the ISO 9660 image has no primary volume descriptor")
    return primary, joliet


def _find(volume: Volume, descriptor: bytes, *, path: str, joliet: bool) -> _Record | None:
    here = _record(descriptor[156:190], joliet=joliet)
    parts = path.split("/")
    for depth, part in enumerate(parts):
        wanted_folder = depth < len(parts) - 1
        names = (one for one in _folder(volume, here, joliet=joliet) if bool(one.flags & _FOLDER) == wanted_folder)
        entry = next((one for one in names if one.name.lower() == part.lower()), None)
        if entry is None:
            return None
        here = entry
    return here


def _folder(volume: Volume, folder: _Record, *, joliet: bool) -> Iterator[_Record]:
    """The records of a folder; none crosses the end of a sector."""
    if folder.size > FOLDER_LIMIT:
        raise VolumeError(f"a folder is larger than {FOLDER_LIMIT} bytes")
    data = volume.read(folder.start, folder.size)
    at = 0
    while at < len(data):
        length = data[at]
        if not length:
            at += _SECTOR - at % _SECTOR
            continue
        if length <= _HEAD or at + length > len(data):
            raise VolumeError("a directory record of the ISO 9660 image is broken")
        yield _record(data[at : at + length], joliet=joliet)
        at += length


def _record(data: bytes, *, joliet: bool) -> _Record:
    start, size, flags, name_length = struct.unpack_from("<2xI4xI11xB6xB", data)
    raw = data[_HEAD : _HEAD + name_length]
    if joliet:
        name = raw.decode("utf-16-be", "replace")
    else:
        after = _HEAD + name_length + (name_length + 1) % 2
        name = _rock_ridge(data[after:]) or raw.decode("ascii", "replace")
    return _Record(name.partition(";")[0].rstrip("."), start * _SECTOR, size, flags)


def _rock_ridge(area: bytes) -> str:
    """The name in the system use area, "" where there is none (SUSP 1.12: signature, length, version, content)."""
    name = b""
    at = 0
    while at + 4 < len(area):
        length = area[at + 2]
        if length < 4 or at + length > len(area):
            break
        if area[at : at + 2] == b"NM" and length > 5 and not area[at + 4] & 6:
            name += area[at + 5 : at + length]
        at += length
    return name.decode("utf-8", "replace")
