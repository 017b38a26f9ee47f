"""What `local` has instead of a cloud's SDK: machines made of processes, with their records on disk.

Layout of the state directory: `vms/<name>/instance.json` and `console.log`; `addresses/<address>`, symbolic links to
the name that holds the address (making a link is an atomic claim); `lock`. The user data is kept nowhere.
All calls block, for milliseconds; the provider runs them in threads.
"""

import fcntl
import logging
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import IO, Protocol

from caa.errors import CapacityError, ProviderError, ProviderUnavailable
from providers.local import bridge, translate
from providers.local.cgroups import Cgroups
from providers.local.translate import Record, Site

_log = logging.getLogger(__name__)

_KILL_SECONDS = 10.0
_START_SECONDS = 10.0
_CONSOLE_BYTES = 1 << 20
_GUEST_ENVIRONMENT = (
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "linux"),
)


class Machines(Protocol):
    """Machines by name. Raises `OSError`, `NetworkError` or `ProviderError`."""

    def find(self, name: str) -> Record | None:
        """The record of that name, None when there is none."""

    def all(self) -> Sequence[Record]:
        """Every record, half-made machines included."""

    def alive(self, name: str) -> bool:
        """Whether a process of it runs and its cable is plugged in."""

    def runs(self, name: str) -> bool:
        """Whether a process of it runs."""

    def launch(self, record: Record, user_data: bytes) -> Record:
        """Make the machine and start the guest; an address that the record has already is kept.

        Without user data there is no config drive. On an error the caller removes what was made.
        """

    def remove(self, name: str) -> None:
        """Return when nothing of it is left; absent is success."""

    def console(self, name: str) -> bytes:
        """The last MiB of what the guest printed; nothing when there is no such machine."""


class LocalMachines:
    """Machines on this kernel."""

    def __init__(self, site: Site, cgroups: Cgroups, *, cabled: Callable[[str, int], None] | None = None) -> None:
        """`cabled` is called with name and process id of a machine that has its network and waits to start."""
        self._site = site
        self._cgroups = cgroups
        self._cabled = cabled
        self._vms = site.state_dir / "vms"
        self._addresses = site.state_dir / "addresses"

    def find(self, name: str) -> Record | None:
        """The record of that name, None when there is none."""
        try:
            return translate.from_json((self._vms / name / "instance.json").read_text())
        except FileNotFoundError:
            return None

    def all(self) -> Sequence[Record]:
        """Every record; one that cannot be read is logged and left out, so that it does not hide the others."""
        found = []
        for folder in sorted(self._vms.glob("*/instance.json")):
            try:
                found.append(translate.from_json(folder.read_text()))
            except FileNotFoundError:
                continue
            except ProviderError as error:
                _log.warning("%s: %s", folder, error)
        return found

    def alive(self, name: str) -> bool:
        """Whether a process of it runs, and its cable ends here: the node may have come back in another namespace."""
        return self.runs(name) and bridge.plugged(self._site, name)

    def runs(self, name: str) -> bool:
        """Whether a process of it runs."""
        return bool(self._cgroups.processes(name))

    def launch(self, record: Record, user_data: bytes) -> Record:
        """Record, address, cgroups, process, cable, guest: in this order, so that `remove` finds whatever was begun."""
        self._save_new(record)
        record = replace(record, address=record.address or self._claim(record.name))
        self._save(record)
        self._start(record, user_data)
        return record

    def remove(self, name: str) -> None:
        """Kill, unplug, forget; the record goes last, so that a remove that was cut short can be repeated."""
        self._cgroups.kill(name, seconds=_KILL_SECONDS)
        with self._lock():
            bridge.unplug(self._site, name)
            self._cgroups.remove(name)
        self._release(name)
        with suppress(FileNotFoundError):
            shutil.rmtree(self._vms / name)

    def console(self, name: str) -> bytes:
        """The last MiB of what the guest printed."""
        try:
            with (self._vms / name / "console.log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _CONSOLE_BYTES))
                return log.read()
        except FileNotFoundError:
            return b""

    # --- records and addresses ---

    def _save_new(self, record: Record) -> None:
        """A folder never exists without its record: both appear with one rename."""
        self._vms.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._vms.parent / f"new-{record.name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        (new / "instance.json").write_text(translate.to_json(record))
        new.rename(self._vms / record.name)

    def _save(self, record: Record) -> None:
        file = self._vms / record.name / "instance.json"
        file.with_suffix(".new").write_text(translate.to_json(record))
        file.with_suffix(".new").replace(file)

    def _claim(self, name: str) -> IPv4Address:
        self._addresses.mkdir(exist_ok=True, mode=0o700)
        for address in self._site.guest_addresses():
            with suppress(FileExistsError):
                (self._addresses / str(address)).symlink_to(name)
                return address
        raise CapacityError(f"every address of LOCAL_SUBNET {self._site.subnet} is taken")

    def _release(self, name: str) -> None:
        for claim in self._addresses.glob("*"):
            with suppress(FileNotFoundError):
                if str(claim.readlink()) == name:
                    claim.unlink()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One at a time makes or removes what all share (the bridge, the cgroups' parent), in other processes too.

        Where the state directory is gone there is nobody left to share with.
        """
        try:
            file = (self._site.state_dir / "lock").open("w")
        except FileNotFoundError:
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- the machine ---

    def _start(self, record: Record, user_data: bytes) -> None:
        with self._lock():
            cgroups = self._cgroups.make(record.name)
        report, report_end = os.pipe()
        drive_end, drive = os.pipe()
        command = translate.launch_command(
            self._site, record, cgroups=cgroups, descriptors=(report_end, drive_end), size=len(user_data)
        )
        with os.fdopen(report, "rb") as reports, os.fdopen(drive, "wb", buffering=0) as config_drive:
            try:
                self._run(record.name, command, descriptors=(report_end, drive_end))
            finally:
                os.close(report_end)
                os.close(drive_end)
            pid = _first_report(reports)
            assert record.address is not None
            with self._lock():
                bridge.plug(self._site, record.name, address=self._site.interface(record.address), pid=pid)
            if self._cabled is not None:
                self._cabled(record.name, pid)
            _insert(config_drive, user_data)
            _await_guest(reports)
        if not self.alive(record.name):
            raise ProviderError(f"the pod VM {record.name} ended as soon as it started")

    def _run(self, name: str, command: Sequence[str], *, descriptors: tuple[int, int]) -> None:
        """The script forks away and ends within milliseconds; the pod VM belongs to nobody from then on."""
        console = os.open(self._vms / name / "console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            script = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=dict(_GUEST_ENVIRONMENT),
                pass_fds=descriptors,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(console)
        try:
            script.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            script.kill()
            script.wait()


def problems(site: Site, hierarchies: Sequence[translate.Hierarchy]) -> Iterator[tuple[str, str, str]]:
    """What would stop a machine from being made, as (subject, detail, remedy). Makes nothing."""
    if os.geteuid() != 0:
        yield "rights", "namespaces and cgroups need root", "run as root"
    if not hierarchies:
        yield "cgroups", "no cgroup hierarchy is mounted below /sys/fs/cgroup", "mount cgroup2 there"
    for one in hierarchies:
        if not os.access(one.point, os.W_OK):
            yield "cgroups", f"{one.point} cannot be written", "mount it read-write"
    parent = next(folder for folder in (site.state_dir, *site.state_dir.parents) if folder.exists())
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        yield "LOCAL_STATE_DIR", f"{site.state_dir} cannot be made or written", "set it to a writable directory"
    agent = site.agent_command[0] if site.agent_command else "runc"
    if shutil.which(agent) is None:
        yield "LOCAL_AGENT_COMMAND", f"there is no program {agent}", "install it, or set another agent"


def _first_report(reports: IO[bytes]) -> int:
    line = _next_line(reports)
    if not line.startswith(b"pid "):
        raise ProviderError(f"the machine cannot be made: {_reason(line)}")
    return int(line.split()[1])


def _insert(config_drive: IO[bytes], user_data: bytes) -> None:
    """Give the user data to the machine; when it died meanwhile, its report says why."""
    with suppress(BrokenPipeError), config_drive:
        while user_data:
            user_data = user_data[config_drive.write(user_data) :]


def _await_guest(reports: IO[bytes]) -> None:
    """The report descriptor closes when the guest's command runs; any line before that is a failure."""
    line = _next_line(reports)
    if line:
        raise ProviderError(f"the guest cannot be started: {_reason(line)}")


def _next_line(reports: IO[bytes]) -> bytes:
    ready, _, _ = select.select([reports], [], [], _START_SECONDS)
    if not ready:
        raise ProviderUnavailable(f"the machine did not start within {_START_SECONDS:g} s")
    return reports.readline()


def _reason(line: bytes) -> str:
    text = line.decode("utf-8", "replace").removeprefix("error ").strip()
    return text or "its first process ended without a word"
