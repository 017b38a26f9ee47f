"""Namespaces of this thread's own for the length of a block: for what a test builds there, and what it starts."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from caa.testing.demo import world

_CLONE: Mapping[str, int] = MappingProxyType({"mnt": 0x00020000, "net": 0x40000000})
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own(*kinds: str) -> Iterator[None]:
    """This thread, and every thread and process that it starts from now on, is in new namespaces of the `kinds`: "net"
    (empty), "mnt". Needs root."""
    folder = Path.cwd()
    home = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    _checked(_libc.unshare(sum(_CLONE[kind] for kind in kinds)))
    try:
        yield
    finally:
        for descriptor in home:
            _checked(_libc.setns(descriptor, 0))
            os.close(descriptor)
        os.chdir(folder)


@contextmanager
def worker_node() -> Iterator[None]:
    """The same with network and mounts as a worker node has them."""
    with own("mnt", "net"):
        world.run("mount", "--make-rprivate", "/")
        world.prepare()
        yield


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
