"""Encrypted scratch space: unpacked images on a disk that only this boot can read.

LUKS2 with a random key that is never written anywhere, integrity by HMAC, the header in memory only: a header on the
disk could be changed by the host (CVE-2025-59054 and its relatives), and nobody needs it after this boot.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError, StateError
from caa.userdata import paths

_log = logging.getLogger(__name__)

LABEL = "trusted_store"  # of the partition that systemd-repart makes in what the image leaves free
NAME = "scratch"  # of the mapped device
MAPPED = Path("/dev/mapper", NAME)
HEADER = Path("/run/podvm/scratch.header")
PLACE = Path("/run/kata-containers/image")  # where the agent unpacks images
_KEY_BYTES = 64
_LEAST = 64 << 20  # bytes of a partition that is worth the trouble
_BLOCK = 4096
_GROUP = 32768  # blocks of an ext4 group with blocks of 4 KiB
_EDGE = 1 << 20  # bytes at both ends that mkfs reads before it writes
_SECONDS = 300.0
_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_LARGER = "give the pod VM a larger root volume (ROOT_VOLUME_SIZE)"

Run = Callable[[Sequence[str], bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`always`: also when the worker has not asked for it, as far as possible. `device` "" finds the partition."""

    always: bool = False
    integrity: bool = True
    device: str = ""
    root: Path = Path("/")
    key: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    @property
    def demanded(self) -> bool:
        """Whether the worker asks for it (ENABLE_SCRATCH_SPACE): then no pod starts without."""
        return (self.root / paths.SCRATCH_MARKER.lstrip("/")).exists()


def run(options: Options, execute: Run | None = None) -> int:
    """`setup-scratch-storage` as a command: 0, or 1 when it is demanded and cannot be had.

    An image that always tries goes on without it: layers are then kept in memory, which is the VM's own.
    """
    if not options.demanded and not options.always:
        _log.info("no scratch space is asked for, images are unpacked in memory")
        return 0
    try:
        _set_up(options, execute or _run)
    except CaaError as error:
        if options.demanded:
            _log.error("no scratch space, and ENABLE_SCRATCH_SPACE demands it: %s", error)
            return 1
        _log.warning("no scratch space, images are unpacked in memory: %s", error)
    return 0


def _set_up(options: Options, execute: Run) -> None:
    place = options.root / str(PLACE).lstrip("/")
    if place.is_mount():
        _log.info("%s is mounted already", PLACE)
        return
    device = find(options)
    size = size_of(device)
    if size < _LEAST:
        raise StateError(
            f"the scratch partition {device} has {size >> 20} MiB, at least {_LEAST >> 20} are needed: {_LARGER}"
        )
    key = options.key(_KEY_BYTES)
    header = options.root / str(HEADER).lstrip("/")
    mapped = options.root / str(MAPPED).lstrip("/")
    header.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        execute(format_command(device, header, integrity=options.integrity), key)
        execute(open_command(device, header), key)
    finally:
        with suppress(FileNotFoundError):
            header.unlink()
    try:
        if options.integrity:
            write_zeros(mapped)
        execute(mkfs_command(mapped), b"")
        execute(["mount", "-t", "ext4", "-o", "nodev,noatime", "--", str(mapped), str(place)], b"")
    except CaaError:
        with suppress(CaaError):
            execute(["cryptsetup", "close", NAME], b"")
        raise
    _log.info("images are unpacked on %s (%d MiB), encrypted with a key of this boot", device, size >> 20)


def format_command(device: Path, header: Path, *, integrity: bool) -> list[str]:
    """`luksFormat` with the header in a file of its own. A random key needs no stretching, so it takes 50 ms."""
    command = [
        "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--cipher", "aes-xts-plain64",
        "--key-size", "512", "--sector-size", str(_BLOCK), "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
        "--key-file", "-", "--keyfile-size", str(_KEY_BYTES), "--header", str(header),
    ]  # fmt: skip
    # Without a wipe: every block is written before it is read, see `write_zeros`.
    return [*command, *(["--integrity", "hmac-sha256", "--integrity-no-wipe"] if integrity else []), str(device)]


def open_command(device: Path, header: Path) -> list[str]:
    """`open`; whatever discards say about which blocks are free is not told to the host."""
    keys = ["--key-file", "-", "--keyfile-size", str(_KEY_BYTES), "--header", str(header)]
    return ["cryptsetup", "open", "--type", "luks2", *keys, str(device), NAME]


def mkfs_command(mapped: Path) -> list[str]:
    """ext4 without a journal, for nothing outlives the boot."""
    return ["mkfs.ext4", "-q", "-F", "-b", str(_BLOCK), "-m", "0", "-O", "^has_journal", "-L", NAME, str(mapped)]


def write_zeros(mapped: Path) -> None:
    """Write what mkfs reads or writes in part: a block that was never written fails its integrity check."""
    try:
        with mapped.open("r+b", buffering=0) as disk:
            for at, length in zeros(disk.seek(0, os.SEEK_END)):
                os.pwrite(disk.fileno(), bytes(length), at)
            os.fsync(disk.fileno())
    except OSError as error:
        raise StateError(f"the scratch space cannot be written: {error.strerror}") from error


def zeros(size: int) -> Iterator[tuple[int, int]]:
    """Place and length of what has to be zero: both ends, and the block of each copy of the superblock.

    Copies are in the groups 1 and the powers of 3, 5 and 7 (ext4's `sparse_super`).
    """
    size -= size % _BLOCK
    yield 0, min(_EDGE, size)
    groups = -(-size // (_BLOCK * _GROUP))
    copies = {base**power for base in (3, 5, 7) for power in range(20) if base**power < groups}
    for group in sorted(copies):
        yield group * _GROUP * _BLOCK, _BLOCK
    if size > 2 * _EDGE:
        yield size - _EDGE, _EDGE


def find(options: Options) -> Path:
    """The partition labelled `trusted_store` of the disk that this VM runs from. Raises `StateError`.

    A volume with such a partition is somebody's data, so a disk of which the VM uses nothing else does not count.
    """
    if options.device:
        device = options.root / options.device.lstrip("/")
        if not device.exists():
            raise StateError(f"there is no device {options.device}")
        return device
    blocks = options.root / "sys/class/block"
    present = sorted(blocks.iterdir()) if blocks.is_dir() else []
    labelled = [block for block in present if _label(block, options.root) == LABEL]
    found = [block for block in labelled if _is_own(block, options.root)]
    if len(found) != 1:
        where = f" ({len(labelled)} such partitions are on disks that are not this VM's own)" if labelled else ""
        why = "more than one partition is" if found else f"no partition is{where}"
        raise StateError(f"{why} labelled {LABEL}; when the root volume is no larger than the image, {_LARGER}")
    return options.root / "dev" / found[0].name


def _label(block: Path, root: Path) -> str:
    """The partition's name: from the kernel, or from udev.

    The kernel has none for a partition that systemd-repart added to a disk in use (BLKPG_ADD_PARTITION carries none).
    """
    number = _text(block / "dev").strip()
    places = ((block / "uevent", "PARTNAME="), (root / f"run/udev/data/b{number}", "E:ID_PART_ENTRY_NAME="))
    lines = ((line, key) for file, key in places for line in _text(file).splitlines())
    return next((line.removeprefix(key) for line, key in lines if line.startswith(key)), "")


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _is_own(block: Path, root: Path) -> bool:
    """Whether another partition of the same disk is mounted, or holds up a mapped device such as the verity root."""
    disk = block.resolve().parent
    try:
        mounts = (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        mounts = []
    numbers = {line.split(" ")[2] for line in mounts if line.count(" ") > 5}
    for part in disk.iterdir():
        if not (part / "partition").exists() or part.name == block.name:
            continue
        holders = part / "holders"
        if (holders.is_dir() and any(holders.iterdir())) or (part / "dev").read_text().strip() in numbers:
            return True
    return False


def size_of(device: Path) -> int:
    """Bytes of a device or image file. Raises `StateError`."""
    try:
        with device.open("rb") as disk:
            return disk.seek(0, os.SEEK_END)
    except OSError as error:
        raise StateError(f"the scratch partition {device} cannot be read: {error.strerror}") from error


def _run(command: Sequence[str], text: bytes) -> None:
    """Run a program with a key, if any, on its standard input; an argument list can be read by everybody."""
    program = shutil.which(command[0], path=_PATHS)
    if program is None:
        raise StateError(f"the image has no program {command[0]}")
    what = " ".join(command[:2])
    try:
        done = subprocess.run(
            [program, *command[1:]],
            input=text,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={"PATH": _PATHS},
        )
    except subprocess.TimeoutExpired:
        raise StateError(f"{what} does not end within {_SECONDS:g} s") from None
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
        raise StateError(f"{what} failed: {explained(reason) or f'status {done.returncode}'}")


def explained(reason: str) -> str:
    """A program's own words, and what they mean for who runs pods."""
    lower = reason.lower()
    if "no space left" in lower or "too small" in lower:
        return f"{reason} (there is no room: {_LARGER})"
    if "device-mapper" in lower or "device mapper" in lower or "dm_mod" in lower:
        return f"{reason} (the image's kernel needs dm-crypt and, with integrity, dm-integrity)"
    return reason
