"""Root file systems: unpacked folders by image name, and the one built on the spot from a static busybox."""

import re
import struct
import subprocess
from pathlib import Path
from shutil import copyfile
from types import MappingProxyType

from caa.errors import InvalidInput
from caa.testing.agent.answers import error

BUSYBOX = Path("/bin/busybox")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]*")
BUILT_IN = ("busybox", "pause")
_FOLDERS = "bin dev etc proc sys tmp root run var/log var/www usr/bin usr/sbin sbin mnt"
_FILES = MappingProxyType(
    {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "etc/hostname": "",
        "etc/hosts": "",
        "etc/resolv.conf": "",
    }
)


class Images:
    """Where an image's files are. `folder` holds unpacked ones, `fallback` serves every other name.

    The names `busybox` and `pause` (any registry, any tag) are built into `built` on first use where neither has them.
    """

    def __init__(self, *, folder: Path | None, fallback: Path | None, built: Path) -> None:
        self._folder = folder
        self._fallback = fallback
        self._built = built

    def find(self, reference: str) -> Path:
        """The root file system of `reference`; unknown is the error that a failed pull was recorded with."""
        last = reference.rsplit("/", 1)[-1]
        name = last.split("@", 1)[0].split(":", 1)[0]
        if self._folder is not None and _NAME.fullmatch(last):
            for candidate in (self._folder / last, self._folder / name):
                if candidate.is_dir():
                    return candidate
        if self._fallback is not None:
            return self._fallback
        if name not in BUILT_IN:
            raise error(13, f"[CDH] [ERROR]: Image Pull error: Failed to pull image {reference} (no such image here)")
        if not self._built.is_dir():
            build_busybox_rootfs(self._built)
        return self._built


def build_busybox_rootfs(folder: Path, busybox: Path = BUSYBOX) -> None:
    """Make a root file system of a few folders and busybox with a link for each of its applets (about 2 MB, 20 ms).

    Raises `InvalidInput` when `busybox` is not statically linked (Debian's package is `busybox-static`).
    """
    if not is_static_elf(busybox.read_bytes()):
        raise InvalidInput(f"{busybox} is not a static executable: install the package busybox-static")
    for name in _FOLDERS.split():
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    copyfile(busybox, folder / "bin/busybox")
    (folder / "bin/busybox").chmod(0o755)
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")


def is_static_elf(binary: bytes) -> bool:
    """Whether a 64-bit little-endian ELF file asks for no interpreter (PT_INTERP, type 3)."""
    if len(binary) < 64 or binary[:6] != b"\x7fELF\x02\x01":
        return False
    (offset,) = struct.unpack_from("<Q", binary, 32)
    size, count = struct.unpack_from("<HH", binary, 54)
    kinds = [struct.unpack_from("<I", binary, offset + index * size)[0] for index in range(count)]
    return 3 not in kinds
