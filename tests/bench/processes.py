"""Programs that a benchmark starts, and what the kernel says of them: time on CPU, memory."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 15.0


@dataclass(frozen=True)
class Program:
    """A running process of ours."""

    process: subprocess.Popen[bytes]

    def cpu_ns(self) -> int:
        """Nanoseconds that its threads have spent on a CPU so far."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())

    def rss_kib(self) -> int:
        """Resident set size in KiB."""
        return self._field("status", "VmRSS:")

    def memory_kib(self) -> int:
        """Memory of its own in KiB. Pages of files are left out: their part changes with every other process."""
        return self._field("smaps_rollup", "Pss_Anon:")

    def _field(self, file: str, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        raise ValueError(f"no {name} in {file}")


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[Program]:
    """Run a program with its output in `log`; it is gone when the block ends."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield Program(process)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(ready: Callable[[], bool], what: str, log: Path) -> None:
    """Look every half millisecond; after 15 s raise `TimeoutError` with the end of the program's log."""
    until = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} is not ready; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.0005)


def accepts(port: int) -> bool:
    """Whether somebody accepts TCP connections on this port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listens(path: Path) -> bool:
    """Whether somebody accepts connections at this socket file; it is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
