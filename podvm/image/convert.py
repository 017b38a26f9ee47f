"""A raw image in the formats that clouds take: qcow2, fixed VHD, a tar of one disk; the same bytes each time."""

import gzip
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, cast

from caa.errors import ConfigError

_MIB = 1 << 20
_DISK = "disk.raw"  # the name that GCP wants in the archive


def convert(raw: Path, form: str, *, to: Path | None = None) -> Path:
    """Write `raw` as `form` beside it, or as `to`. Raises `ConfigError`."""
    if form not in FORMS:
        raise ConfigError(f"there is no format {form!r}: {', '.join(FORMS)}")
    if not raw.is_file():
        raise ConfigError(f"there is no image {raw}: build one with make image")
    suffix, write = FORMS[form]
    target = to or raw.with_name(raw.name.removesuffix(".raw") + suffix)
    new = target.with_name(f".{target.name}.new")
    try:
        write(raw, new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)  # half an image, when the disk is full
    return target


def _qcow2(raw: Path, to: Path) -> None:
    _qemu(["convert", "-f", "raw", "-O", "qcow2", "-c", str(raw), str(to)])


def _vhd(raw: Path, to: Path) -> None:
    """Azure takes fixed VHDs of whole MiB alone. The footer's time and id are ours, so that it is always the same."""
    padded = to.with_name(f"{to.name}.raw")
    try:
        _copy_whole_mib(raw, padded)
        _qemu(["convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size", str(padded), str(to)])
    finally:
        padded.unlink(missing_ok=True)
    _steady_footer(to)


def _raw(raw: Path, to: Path) -> None:
    _copy_whole_mib(raw, to)


def _tar(raw: Path, to: Path) -> None:
    """GCP: a gzipped tar in the old GNU format that holds `disk.raw`, of whole GiB."""
    size = raw.stat().st_size
    info = tarfile.TarInfo(_DISK)
    info.size = -(-size // (1 << 30)) * (1 << 30)
    info.mode = 0o644
    with to.open("wb") as out, gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed:
        _add_disk(packed, info, raw=raw)


def _add_disk(out: gzip.GzipFile, info: tarfile.TarInfo, *, raw: Path) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive, raw.open("rb") as disk:
        archive.addfile(info, cast("BinaryIO", _Padded(disk, info.size)))


class _Padded:
    """A file that goes on with zeros up to a size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        data += bytes(min(count, self._left) - len(data))
        self._left -= len(data)
        return data


def _copy_whole_mib(raw: Path, to: Path) -> None:
    shutil.copyfile(raw, to)
    size = to.stat().st_size
    with to.open("r+b") as out:
        out.truncate(-(-size // _MIB) * _MIB)


def _steady_footer(file: Path) -> None:
    """Set time stamp (offset 24) and unique id (offset 68) of the VHD's last 512 bytes to zero, and their checksum."""
    with file.open("r+b") as disk:
        disk.seek(-512, 2)
        footer = bytearray(disk.read(512))
        if footer[:8] != b"conectix":
            raise ConfigError(f"{file} has no VHD footer: qemu-img wrote something else")
        footer[24:28] = bytes(4)
        footer[64:68] = bytes(4)
        footer[68:84] = bytes(16)
        footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
        disk.seek(-512, 2)
        disk.write(footer)


def _qemu(arguments: list[str]) -> None:
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("the program qemu-img is missing: apt-get install qemu-utils") from None
    if done.returncode:
        raise ConfigError(f"qemu-img {arguments[0]}: {done.stderr.strip()[-300:]}")


FORMS: Mapping[str, tuple[str, Callable[[Path, Path], None]]] = MappingProxyType(
    {"qcow2": (".qcow2", _qcow2), "raw": (".whole.raw", _raw), "vhd": (".vhd", _vhd), "tar": (".tar.gz", _tar)}
)
