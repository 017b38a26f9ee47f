"""Reads a file out of a FAT12, FAT16 or FAT32 image: config drives, on kernels that have no such file system.

After Microsoft's "FAT: General Overview of On-Disk Format" 1.03, with the long names of its section on VFAT.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from podvm.clouds.volume import FILE_LIMIT, FOLDER_LIMIT, Volume, VolumeError

_ENTRY = 32  # bytes
_LABEL, _FOLDER, _LONG = 0x08, 0x10, 0x0F  # attributes
_DELETED, _END = 0xE5, 0
_NO_LABEL = ("NO NAME", "")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are. All but `bits` in bytes, `root` a cluster with FAT32 and else a byte."""

    bits: int
    cluster: int
    table: int
    root: int
    root_size: int
    data: int
    clusters: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    attributes: int
    cluster: int
    size: int


def label(volume: Volume) -> str:
    """The volume's label, from the root folder as `mkfs.vfat -n` puts it there, else from the boot sector."""
    layout = _layout(volume)
    for entry in _entries(_root(volume, layout)):
        if entry.attributes & _LABEL:
            return entry.name.replace(".", "").strip()
    text = volume.read(71 if layout.bits == 32 else 43, 11).decode("ascii", "replace").strip()
    return "" if text in _NO_LABEL else text


def read(volume: Volume, path: str) -> bytes | None:
    """The file at `path`; None when there is none. Names compare without regard to case. Raises `VolumeError`."""
    layout = _layout(volume)
    folder = _root(volume, layout)
    *folders, name = path.split("/")
    for part in folders:
        entry = _named(folder, part, is_folder=True)
        if entry is None:
            return None
        folder = _content(volume, layout, cluster=entry.cluster, limit=FOLDER_LIMIT)
    found = _named(folder, name, is_folder=False)
    if found is None:
        return None
    if found.size > FILE_LIMIT:
        raise VolumeError(f"{path} is larger than {FILE_LIMIT} bytes")
    content = _content(volume, layout, cluster=found.cluster, limit=found.size) if found.size else b""
    if len(content) < found.size:
        raise VolumeError(f"{path} ends before its size")
    return content[: found.size]


def _layout(volume: Volume) -> _Layout:
    sector, per_cluster, reserved, tables, entries, small, short = volume.unpack("<11xHBHBHHxH", 0)
    total = small or volume.unpack("<I", 32)[0]
    length = short or volume.unpack("<I", 36)[0]
    signature = volume.read(510, 2)
    good = sector in (512, 1024, 2048, 4096) and per_cluster and not per_cluster & (per_cluster - 1)
    if signature != b"\x55\xaa" or not good or not reserved or tables not in (1, 2) or not length:
        raise VolumeError("it is no FAT image")
    root_sectors = -(-entries * _ENTRY // sector)
    first = reserved + tables * length
    clusters = (total - first - root_sectors) // per_cluster
    if clusters <= 0:
        raise VolumeError("the FAT image's sizes do not fit each other")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    return _Layout(
        bits=bits,
        cluster=per_cluster * sector,
        table=reserved * sector,
        root=volume.unpack("<I", 44)[0] if bits == 32 else first * sector,
        root_size=entries * _ENTRY,
        data=(first + root_sectors) * sector,
        clusters=clusters,
    )


def _root(volume: Volume, layout: _Layout) -> bytes:
    if layout.bits == 32:
        return _content(volume, layout, cluster=layout.root, limit=FOLDER_LIMIT)
    return volume.read(layout.root, layout.root_size)


def _content(volume: Volume, layout: _Layout, *, cluster: int, limit: int) -> bytes:
    """What a chain of clusters holds, up to the cluster in which `limit` is reached."""
    found = bytearray()
    while 2 <= cluster < layout.clusters + 2 and len(found) < limit:
        found += volume.read(layout.data + (cluster - 2) * layout.cluster, layout.cluster)
        cluster = _next(volume, layout, cluster=cluster)
    return bytes(found)


def _next(volume: Volume, layout: _Layout, *, cluster: int) -> int:
    if layout.bits == 12:
        (pair,) = volume.unpack("<H", layout.table + cluster * 3 // 2)
        return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
    if layout.bits == 16:
        return int(volume.unpack("<H", layout.table + cluster * 2)[0])
    return int(volume.unpack("<I", layout.table + cluster * 4)[0]) & 0x0FFFFFFF


def _named(folder: bytes, name: str, *, is_folder: bool) -> _Entry | None:
    for entry in _entries(folder):
        kind = bool(entry.attributes & _FOLDER)
        if not entry.attributes & _LABEL and kind == is_folder and entry.name.lower() == name.lower():
            return entry
    return None


def _entries(folder: bytes) -> Iterator[_Entry]:
    """The entries under their long names where they have some; the parts of a long name stand before its entry."""
    long_name = ""
    for at in range(0, len(folder) - _ENTRY + 1, _ENTRY):
        data = folder[at : at + _ENTRY]
        if data[0] == _END:
            return
        if data[0] == _DELETED:
            long_name = ""
        elif data[11] & 0x3F == _LONG:
            part = data[1:11] + data[14:26] + data[28:32]
            long_name = part.decode("utf-16-le", "replace").partition("\0")[0] + long_name
        else:
            yield _entry(data, long_name)
            long_name = ""


def _entry(data: bytes, long_name: str) -> _Entry:
    stem, suffix = (part.decode("ascii", "replace").rstrip() for part in (data[:8], data[8:11]))
    high, low, size = struct.unpack_from("<20xH4xHI", data)
    is_label = data[11] & _LABEL
    name = stem.ljust(8) + suffix if is_label else long_name or (f"{stem}.{suffix}" if suffix else stem)
    return _Entry(name.strip(), data[11], high << 16 | low, size)
