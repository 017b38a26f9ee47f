"""Relay and forwarder as processes, as an operator's node has them, and waiting for them."""

import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caa.datapath import edits
from caa.relay import launch
from tests.fakes.datapath.authority import SERVER_NAME
from tests.fakes.datapath.calls import Shim


def wait_until(true: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def accepts(path: Path) -> bool:
    """Whether somebody listens at a socket file; one may be left over from a process that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def free_port(family: int = socket.AF_INET) -> int:
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return int(sock.getsockname()[1])


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there, from the kernel's table: a connection would be one more client."""
    table = "/proc/net/tcp6" if ":" in host else "/proc/net/tcp"
    lines = Path(table).read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


@dataclass
class Process:
    """A process of ours with its stderr in a file."""

    argv: list[str]
    log: Path

    def __post_init__(self) -> None:
        with self.log.open("wb") as file:
            self.child = subprocess.Popen(self.argv, stderr=file, stdout=file, env={}, cwd="/")

    @property
    def pid(self) -> int:
        return self.child.pid

    def text(self) -> str:
        return self.log.read_text()

    def status(self, name: str) -> int:
        """A number of /proc/<pid>/status, in KiB where it is one of memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name + ":")).split()[1])

    def stop(self) -> int:
        self.child.terminate()
        return self.child.wait(10)


@dataclass
class Relay:
    """A running relay with its folders below `folder`."""

    folder: Path
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.hypervisor = self.folder / "h" / "hypervisor.sock"
        self.successor = self.hypervisor.exists()
        self.pods = self.folder / "p"
        self.run = self.folder / "r"
        self.state = self.folder / "s"
        self.process = Process(self.argv(), self.folder / f"relay-{len(list(self.folder.glob('relay-*.log')))}.log")
        wait_until(lambda: self._serves() or self.process.child.poll() is not None, "the relay")

    def _serves(self) -> bool:
        return "serving" in self.process.text() if self.successor else accepts(self.hypervisor)

    def argv(self) -> list[str]:
        return launch.command(
            hypervisor_socket=str(self.hypervisor),
            pods_dir=str(self.pods),
            run_dir=str(self.run),
            state_dir=str(self.state),
            extra=("--niceness", "0", "--successor-wait-seconds", "0", *self.extra),
        )

    def agent_socket(self, sandbox: str = "pod") -> Path:
        return self.pods / sandbox / "agent.ttrpc"

    def ask(self, method: str, payload: bytes, timeout: float = 10.0) -> tuple[tuple[int, str], bytes]:
        commands = Shim(self.run / "relay.sock")
        try:
            return commands.call(method, payload, service="caa.relay.v1.AgentLinks", timeout=int(timeout * 1e9))
        finally:
            commands.close()

    def close(self, sandbox: str = "pod") -> tuple[int, str]:
        return self.ask("Close", edits.bytes_field(1, sandbox.encode()))[0]

    def links(self) -> list[tuple[str, bool, int]]:
        _, payload = self.ask("List", b"")
        return [
            (edits.last_bytes(link, 1).decode(), bool(edits.last_varint(link, 2)), edits.last_varint(link, 3))
            for link in edits.all_bytes(payload, 1)
        ]


@dataclass(frozen=True)
class Opening:
    """An Open request, ready to be changed with `dataclasses.replace`."""

    port: int
    ca: Path | None = None
    client: tuple[Path, Path] | None = None
    sandbox: str = "pod"
    addresses: tuple[str, ...] = ("127.0.0.1",)
    name: str = SERVER_NAME
    version: str = ""
    skip_verify: bool = False
    disable_tls: bool = False

    def payload(self) -> bytes:
        text = edits.bytes_field
        parts = [text(1, self.sandbox.encode()), *(text(2, one.encode()) for one in self.addresses)]
        parts += [edits.varint_field(3, self.port), text(4, self.name.encode()), text(8, self.version.encode())]
        if self.ca is not None:
            parts.append(text(5, str(self.ca).encode()))
        if self.client is not None:
            parts += [text(6, str(self.client[0]).encode()), text(7, str(self.client[1]).encode())]
        parts += [edits.varint_field(10, self.skip_verify), edits.varint_field(11, self.disable_tls)]
        return b"".join(parts)


@dataclass
class Guest:
    """A running forwarder."""

    process: Process
    port: int
    opening: Opening
