"""Network namespaces as files: open and check one, act inside one, make one, remove one.

Uses libc by ctypes, since os.setns and os.unshare came with Python 3.12. Nothing forks: work inside a namespace is
done in a short-lived thread (some 100 us), which ends there, so no thread of ours is ever left in a wrong one.
"""

import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from caa.errors import InvalidInput, NetworkError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_MS_BIND = 0x1000
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the network namespace at `path`; raises `InvalidInput` as `open_netns` does."""
    descriptor = open_netns(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_netns(path: str) -> int:
    """Open the network namespace at `path`. Raises `InvalidInput`, naming the path, when it is anything else.

    Only a file of the kernel's own nsfs is opened at all, so a pipe, a device or a huge file does no harm.
    """
    try:
        if not _of_nsfs(Path(path).stat()):
            raise InvalidInput(f"{path!r} is not a network namespace")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise InvalidInput(f"network namespace {path!r} cannot be opened: {reason}") from error
    if _is_network(descriptor):
        return descriptor
    os.close(descriptor)
    raise InvalidInput(f"{path!r} is a namespace, but not a network namespace")


def _of_nsfs(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_dev == Path(_OWN).stat().st_dev


def _is_network(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:  # replaced between the look and the opening
        return False


def is_own(descriptor: int) -> bool:
    """Whether the namespace is the one this thread is in."""
    mine, other = Path(_OWN).stat(), os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)


def inside(descriptor: int, act: Callable[[], T]) -> T:
    """Run `act` in the network namespace of `descriptor`, in a thread of its own, and wait for it."""

    def enter() -> T:
        _call("enter a network namespace", _libc.setns(descriptor, _CLONE_NEWNET))
        return act()

    return _in_thread(enter)


def ensure_netns(path: str) -> bool:
    """Make a network namespace and mount it at `path`, as `ip netns add` does; True when it was not there before."""
    with suppress(InvalidInput):
        os.close(open_netns(path))
        return False
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o444)
    except OSError as error:
        raise NetworkError(f"cannot make the network namespace {path}: {error.strerror}") from error
    _in_thread(lambda: _unshare_onto(path))
    return True


def _unshare_onto(path: str) -> None:
    _call("make a network namespace", _libc.unshare(_CLONE_NEWNET))
    mounted = _libc.mount(_OWN.encode(), os.fsencode(path), None, ctypes.c_ulong(_MS_BIND), None)
    _call(f"mount a network namespace at {path}", mounted)


def remove_netns(path: str) -> None:
    """Unmount the namespace at `path` and remove the file; absent is success."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) and ctypes.get_errno() not in (errno.ENOENT, errno.EINVAL):
        _call(f"unmount the network namespace {path}", -1)
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise NetworkError(f"cannot remove the network namespace {path}: {error.strerror}") from error


def _call(what: str, result: int) -> None:
    if result:
        raise NetworkError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


def _in_thread(act: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:  # handed to the caller, whatever it is
            failures.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
