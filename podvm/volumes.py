"""Volumes that were mounted for the pod: what has to be unmounted before the sandbox ends."""

from __future__ import annotations

import posix
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = "/run/cloud-volumes"
_SECONDS = 10.0
_PROGRAMS = ("/usr/bin/umount", "/bin/umount", "/sbin/umount")


class UnmountError(Exception):
    """A volume is still mounted; the text names it."""


def mounted_under(root: str, mountinfo: str) -> list[str]:
    """Mount points below `root`, deepest first, from the text of `/proc/self/mountinfo` (proc(5), field 5)."""
    points = [_unescape(line.split(" ")[4]) for line in mountinfo.splitlines() if line.count(" ") > 5]
    return [point for point in reversed(points) if point == root or point.startswith(root + "/")]


def unmount_all(root: str = ROOT) -> None:
    """Unmount every volume below `root`; none is success. Raises `UnmountError` when one is still busy.

    A short-lived child does it, because the interpreter has no call for it and `ctypes` costs memory for ever.
    """
    points = mounted_under(root, _mountinfo())
    if not points:
        return
    _run(_spawn(points))
    left = mounted_under(root, _mountinfo())
    if left:
        raise UnmountError(f"still mounted: {', '.join(left[:4])}")


def _mountinfo() -> str:
    fd = posix.open("/proc/self/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = list(iter(lambda: posix.read(fd, 1 << 16), b""))
    finally:
        posix.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _unescape(text: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def _spawn(points: Sequence[str], spawn: Callable[[str, Sequence[str], Mapping[str, str]], int] | None = None) -> int:
    start = posix.posix_spawn if spawn is None else spawn
    for program in _PROGRAMS:
        try:
            return start(program, ["umount", "--", *points], {})
        except FileNotFoundError:
            continue
    raise UnmountError("there is no umount program")


def _run(pid: int) -> None:
    """Wait for the child; one that hangs is killed and counts as a failure."""
    end = monotonic() + _SECONDS
    while posix.waitpid(pid, posix.WNOHANG)[0] == 0:
        if monotonic() > end:
            posix.kill(pid, 9)
            posix.waitpid(pid, 0)
            return
        sleep(0.005)
