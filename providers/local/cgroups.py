"""The cgroups of local pod VMs: the one thing that knows every process of a pod VM, whatever happened to this node.

A pod VM's processes, those of its containers included, never leave its cgroup, so the cgroup answers "does it run?"
after a restart of the node, and is what a delete kills. Works on cgroup v1, on hybrid systems, and on v2.
"""

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from caa.errors import ProviderUnavailable
from providers.local.translate import Hierarchy

_POLL_SECONDS = 0.002
_BUSY_TRIES = 1000


class Cgroups:
    """The cgroups below one parent folder, in every hierarchy of the machine. All calls block, for milliseconds."""

    def __init__(self, hierarchies: Sequence[Hierarchy], parent: str) -> None:
        self._hierarchies = tuple(hierarchies)
        self._parent = parent

    def make(self, name: str) -> list[tuple[Hierarchy, str]]:
        """Make the pod VM's cgroup in each hierarchy; the path of each one is given back. Raises `OSError`."""
        made = []
        for one in self._hierarchies:
            ours = Path(one.point, self._parent, name)
            ours.mkdir(parents=True, exist_ok=True)
            for folder in (ours.parent, ours):
                _fill_cpuset(folder)
            _weigh(ours.parent)
            for folder in (ours.parent.parent, ours.parent):  # not our own: it is about to hold a process (v2's rule)
                _hand_down(folder)
            made.append((one, str(ours)))
        return made

    def processes(self, name: str) -> set[int]:
        """The ids of all processes of the pod VM, as this process sees them."""
        return set().union(*(_processes(folder) for folder in self._folders(name)))

    def kill(self, name: str, *, seconds: float) -> None:
        """Kill every process and wait until none is left; raises `ProviderUnavailable` when that takes too long."""
        deadline = time.monotonic() + seconds
        while pids := self.processes(name):
            self._thaw(name)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
            for pid in pids:
                _reap(pid)
            if time.monotonic() > deadline:
                raise ProviderUnavailable(f"{len(pids)} processes of the pod VM {name} do not end")

    def remove(self, name: str) -> None:
        """Remove the pod VM's cgroups, and ours above them when they are empty. Nothing there is success."""
        for folder in self._folders(name):
            _remove_folder(folder)
        for one in self._hierarchies:
            with suppress(OSError):  # another pod VM lives there, or it is gone already
                Path(one.point, self._parent).rmdir()

    def _folders(self, name: str) -> Iterator[Path]:
        """All cgroups of a pod VM, the innermost first."""
        for one in self._hierarchies:
            for folder, _, _ in os.walk(Path(one.point, self._parent, name), topdown=False):
                yield Path(folder)

    def _thaw(self, name: str) -> None:
        """A process frozen by the v1 freezer (a paused container) does not die before it is thawed."""
        for folder in self._folders(name):
            with suppress(OSError):
                _write(folder / "freezer.state", "THAWED")


def _fill_cpuset(folder: Path) -> None:
    """A new v1 cpuset is empty and takes no process before it has CPUs and memory nodes."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        with suppress(OSError):  # not the cpuset hierarchy
            if not (folder / file).read_text().strip():
                _write(folder / file, (folder.parent / file).read_text())


def _weigh(folder: Path) -> None:
    """All pod VMs together count as ten processes of the node, not as one, and do not starve beside a busy one."""
    for file, weight in (("cpu.shares", "10240"), ("cpu.weight", "1000")):  # v1, v2: the default is a tenth
        with suppress(OSError):  # not the cpu hierarchy
            _write(folder / file, weight)


def _hand_down(folder: Path) -> None:
    """A v2 cgroup lets its children use only the controllers that it hands down; what it cannot, they lack."""
    with suppress(OSError):  # not a v2 hierarchy
        for controller in (folder / "cgroup.controllers").read_text().split():
            with suppress(OSError):
                _write(folder / "cgroup.subtree_control", f"+{controller}")


def _processes(folder: Path) -> set[int]:
    try:
        return {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    except OSError:  # gone meanwhile
        return set()


def _remove_folder(folder: Path) -> None:
    """A cgroup stays busy for an instant after its last process has ended."""
    for _ in range(_BUSY_TRIES):
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(_POLL_SECONDS)
    raise ProviderUnavailable(f"the cgroup {folder} stays busy")


def _reap(pid: int) -> None:
    """Where this process is the reaper of orphans (PID 1 of a container), the pod VM's first process became ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _write(file: Path, text: str) -> None:
    """Write to a file that has to exist already: opening a control file with O_CREAT where it is missing is EPERM."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
