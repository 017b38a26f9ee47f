"""Control groups, v1 and v2: where a container's are, removing what is left, and the event of a kill for memory."""

import asyncio
import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

UNIFIED = ""
LOOKS = 50
BETWEEN_LOOKS = 0.02


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The mounted cgroup hierarchies: v1 controller name to mount point, and the v2 one under `UNIFIED`."""

    mounts: Mapping[str, Path]

    @property
    def unified(self) -> bool:
        """Whether the controllers are on v2 (a hybrid machine has them on v1)."""
        return "memory" not in self.mounts

    def folder(self, controller: str, cgroup: str) -> Path | None:
        """The folder of a cgroup for one controller, or None where nothing has that controller."""
        mount = self.mounts.get(UNIFIED if self.unified else controller)
        return mount / cgroup.lstrip("/") if mount is not None else None

    def remove(self, cgroup: str) -> None:
        """Remove a cgroup and all below it in every hierarchy; absent is fine, one with processes stays."""
        for mount in set(self.mounts.values()):
            top = mount / cgroup.lstrip("/")
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()

    def prune(self, cgroup: str) -> None:
        """Remove the cgroup alone where it is empty: others may share the parent."""
        for mount in set(self.mounts.values()):
            with suppress(OSError):
                (mount / cgroup.lstrip("/")).rmdir()


def hierarchies(mounts: str) -> Hierarchies:
    """Read `/proc/self/mounts`."""
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2":
            found[UNIFIED] = Path(point)
        elif kind == "cgroup":
            found.update({option: Path(point) for option in options.split(",")})
    return Hierarchies(found)


class OomWatch:
    """Calls back when the kernel has killed a process of a cgroup for memory.

    v1: an eventfd registered for `memory.oom_control`. v2: `memory.events` is a file that polls as EPOLLPRI when it
    changed, and an epoll descriptor of its own makes that readable for the loop.
    """

    def __init__(self, folder: Path, *, unified: bool, report: Callable[[], None]) -> None:
        self._folder = folder
        self._report = report
        self._files: list[int] = []
        self._kills = 0
        self._epoll = self._watch_events() if unified else None
        self._wake = self._epoll.fileno() if self._epoll else self._register_eventfd()
        asyncio.get_running_loop().add_reader(self._wake, self._check)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._wake)
        if self._epoll is not None:
            self._epoll.close()
        for fd in self._files:
            os.close(fd)
        self._files.clear()

    def _register_eventfd(self) -> int:
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        control = os.open(self._folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._files += [wake, control]
        (self._folder / "cgroup.event_control").write_text(f"{wake} {control}")
        return wake

    def _watch_events(self) -> select.epoll:
        events = os.open(self._folder / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._files.append(events)
        epoll = select.epoll()
        epoll.register(events, select.EPOLLPRI)
        return epoll

    def _check(self) -> None:
        self._drain()
        self._compare(LOOKS)

    def _compare(self, looks: int) -> None:
        """v1 tells of the shortage before it kills: look at the count until it has grown."""
        kills = self._count()
        if kills > self._kills:
            self._kills = kills
            self._report()
        elif looks and self._files:
            asyncio.get_running_loop().call_later(BETWEEN_LOOKS, self._compare, looks - 1)

    def _drain(self) -> None:
        if self._epoll is not None:
            self._epoll.poll(0)
            os.pread(self._files[0], 4096, 0)
            return
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _count(self) -> int:
        name = "memory.events" if self._epoll is not None else "memory.oom_control"
        with suppress(OSError):
            return pairs((self._folder / name).read_text()).get("oom_kill", 0)
        return 0


def pairs(text: str) -> dict[str, int]:
    """A cgroup file of lines `name number`."""
    words = (line.split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}
