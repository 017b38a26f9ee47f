"""Volumes of the pod, as the forwarder sees them: a child mounts them, and they go before the sandbox ends."""

from __future__ import annotations

import posix
import sys
from errno import EAGAIN
from time import monotonic, sleep

from caa.datapath.loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from caa.datapath.loop import Loop

ROOT = "/run/cloud-volumes"
IMAGES = "/run/kata-containers/image"
MAPPER = "caa-"  # what the mapped devices of encrypted volumes are called, before the volume's name
_SECONDS = 10.0
_NO_ROOM = 2 << 20  # bytes; no container can be made in less
_ATTACH_SECONDS = 900.0  # more than `podvm.attach` waits for anything
_LONGEST = 32 << 10  # bytes of the annotation; a pipe takes 64 KiB
_ATTACH = "import sys; sys.path.insert(0, {root!r}); from podvm.attach import main; sys.exit(main())"
_CLOSERS = ("/usr/sbin/cryptsetup", "/sbin/cryptsetup")
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
    _close_mapped()
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


def _close_mapped() -> None:
    """Close what the hub has opened, so that the disks can be detached; the VM ends in a moment in any case."""
    try:
        names = [name for name in posix.listdir("/dev/mapper") if name.startswith(MAPPER)]
    except OSError:
        return
    for name in names:
        try:
            _run(_start(_CLOSERS, "cryptsetup", "close", name))
        except UnmountError:
            return


def make_folders(path: str) -> None:
    """Make a folder and its parents, mode 0755 less the umask; what exists is left alone, a file too."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        try:
            posix.mkdir("/" + "/".join(parts[:depth]), 0o755)
        except FileExistsError:
            continue


def no_room(path: str = IMAGES) -> str:
    """A sentence when next to nothing is free where the agent unpacks images, else "".

    The agent would answer with an error number of some library; who runs the pod needs to know which disk it was.
    """
    try:
        found = posix.statvfs(path)
    except OSError:
        return ""  # not there before the first image
    free, all_of_it = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    if free >= _NO_ROOM:
        return ""
    return (
        f"the pod VM has no room left for images: {free >> 20} of {all_of_it >> 20} MiB are free at {path}; give it "
        "more memory, or a disk for them: ENABLE_SCRATCH_SPACE with a larger ROOT_VOLUME_SIZE"
    )


def attach(loop: Loop, annotation: bytes, *, done: Callable[[list[tuple[bytes, bytes]] | str], object]) -> None:
    """Let a child mount the volumes of an annotation; `done` gets mount points and new sources, or what went wrong.

    A child, because it needs JSON, and the formatting of a disk takes longer than a health check may wait.
    """
    if len(annotation) > _LONGEST:
        done(f"the volumes annotation is longer than {_LONGEST} bytes")
        return
    try:
        pid, fd = _start_child(annotation)
    except OSError as error:
        done(f"cannot start the program that mounts volumes: {error.strerror}")
        return
    _Child(loop, pid, fd=fd, done=done)


def _start_child(annotation: bytes) -> tuple[int, int]:
    """The child's process id and the descriptor of its output. The annotation fits the pipe to it."""
    (read_in, write_in), (read_out, write_out) = posix.pipe2(posix.O_CLOEXEC), posix.pipe2(posix.O_CLOEXEC)
    try:
        program = _ATTACH.format(root=__file__.rpartition("/podvm/")[0] or "/")
        posix.write(write_in, annotation)
        actions = [(posix.POSIX_SPAWN_DUP2, read_in, 0), (posix.POSIX_SPAWN_DUP2, write_out, 1)]
        command = [sys.executable, "-I", "-S", "-c", program]
        pid = posix.posix_spawn(sys.executable, command, {}, file_actions=actions)
    except OSError:
        posix.close(read_out)
        raise
    finally:
        for fd in (read_in, write_in, write_out):
            posix.close(fd)
    posix.set_blocking(read_out, False)
    return pid, read_out


class _Child:
    """A child whose output is collected by the loop; it is asked once, when it has closed it."""

    __slots__ = ("_data", "_done", "_fd", "_loop", "_pid", "_timer")

    def __init__(
        self, loop: Loop, pid: int, *, fd: int, done: Callable[[list[tuple[bytes, bytes]] | str], object]
    ) -> None:
        self._loop = loop
        self._pid = pid
        self._fd = fd
        self._done = done
        self._data = b""
        self._timer = loop.later(_ATTACH_SECONDS, self._end)
        loop.add(fd, IN, owner=self)

    def ready(self, _event: int) -> None:
        """The child speaks, or has ended."""
        try:
            piece = posix.read(self._fd, 1 << 16)
        except OSError as error:
            if error.errno == EAGAIN:
                return
            piece = b""
        self._data += piece
        if not piece or len(self._data) > 1 << 20:
            self._end()

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._end()

    def _end(self) -> None:
        if self._fd < 0:
            return
        self._timer.cancel()
        self._loop.remove(self._fd)
        posix.close(self._fd)
        self._fd = -1
        posix.kill(self._pid, 9)  # it has said all it had to, or its time is over
        posix.waitpid(self._pid, 0)
        self._done(outcome(self._data))


def outcome(output: bytes) -> list[tuple[bytes, bytes]] | str:
    """What the child has said: pairs of mount point and new source, or a sentence for the container's answer."""
    kind, *words = output.split(b"\0")
    if kind == b"ok" and not len(words) % 2:
        return list(zip(words[::2], words[1::2], strict=True))
    if kind == b"error" and words:
        return words[0].decode("utf-8", "replace")
    return "the volumes were not mounted: the program that does it ended early, see the pod VM's console"


def _spawn(points: Sequence[str], spawn: Callable[[str, Sequence[str], Mapping[str, str]], int] | None = None) -> int:
    return _start(_PROGRAMS, "umount", "--", *points, spawn=spawn)


def _start(
    programs: Sequence[str],
    *argv: str,
    spawn: Callable[[str, Sequence[str], Mapping[str, str]], int] | None = None,
) -> int:
    start = posix.posix_spawn if spawn is None else spawn
    for program in programs:
        try:
            return start(program, list(argv), {})
        except FileNotFoundError:
            continue
    raise UnmountError(f"there is no {argv[0]} program")


def _run(pid: int) -> None:
    """Wait for the child; one that hangs is killed and counts as a failure."""
    end = monotonic() + _SECONDS
    while posix.waitpid(pid, posix.WNOHANG)[0] == 0:
        if monotonic() > end:
            posix.kill(pid, 9)
            posix.waitpid(pid, 0)
            return
        sleep(0.005)
