"""The ways to cover the two hops: ours, the compiled relay, the typed Go proxy."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from caa.relay import launch
from caa.wire.client import connect
from caa.wire.proto import relay
from podvm import forwarder
from tests.bench.certificates import SERVER_NAME
from tests.bench.processes import Program, accepts, free_port, listens, started, wait_until
from tests.bench.programs import Programs


@dataclass(frozen=True)
class Worker:
    """A first hop that is up: its process and one socket a pod, on which a shim may call."""

    program: Program
    sockets: Sequence[Path]


class Hops(Protocol):
    """One way to build both hops. `folder` is an empty folder for its sockets and logs."""

    @property
    def name(self) -> str: ...

    def guest(self, folder: Path, *, port: int, agent: Path) -> AbstractContextManager[Program]: ...

    def worker(self, folder: Path, *, ports: Sequence[int], pods: int) -> AbstractContextManager[Worker]: ...


@dataclass(frozen=True)
class Compiled:
    """A program with the command line of `c/relay.c`."""

    name: str
    program: Path
    certificates: Path

    @contextmanager
    def guest(self, folder: Path, *, port: int, agent: Path) -> Iterator[Program]:
        log = folder / "guest.log"
        command = [str(self.program), "guest", str(port), str(self.certificates), str(agent)]
        with started(command, log) as program:
            wait_until(lambda: "READY" in log.read_text(), f"{self.name} guest", log)
            yield program

    @contextmanager
    def worker(self, folder: Path, *, ports: Sequence[int], pods: int) -> Iterator[Worker]:
        log = folder / "worker.log"
        command = [str(self.program), "worker", str(ports[0]), str(self.certificates), str(folder), str(pods)]
        with started(command, log) as program:
            wait_until(lambda: "READY" in log.read_text(), f"{self.name} worker", log)
            yield Worker(program, [folder / f"{pod}.sock" for pod in range(pods)])


@dataclass(frozen=True)
class Ours:
    """`caa relay` and the pod VM's forwarder, started as on a node and in a pod VM, but for their niceness.

    They run at -10 by themselves; the others do not, and a comparison wants one for all.
    """

    certificates: Path
    niceness: int
    name: str = "ours"
    flags: tuple[str, ...] = ()

    @contextmanager
    def guest(self, folder: Path, *, port: int, agent: Path) -> Iterator[Program]:
        log = folder / "guest.log"
        command = forwarder.command(
            "-listen", f"127.0.0.1:{port}", "-kata-agent-socket", str(agent),
            "-ca-cert-file", str(self.certificates / "ca.pem"), "-cert-file", str(self.certificates / "server.pem"),
            "-cert-key", str(self.certificates / "server.key"), "-niceness", str(self.niceness),
        )  # fmt: skip
        with started(command, log) as program:
            wait_until(lambda: accepts(port), "the forwarder", log)
            yield program

    @contextmanager
    def worker(self, folder: Path, *, ports: Sequence[int], pods: int) -> Iterator[Worker]:
        log, sockets, control = folder / "worker.log", folder / "run", folder / "run" / "relay.sock"
        with started(self.relay_command(folder), log) as program:
            wait_until(control.exists, "the relay", log)
            asyncio.run(self._open_links(control, ports=ports, pods=pods))
            yield Worker(program, [sockets / "pods" / f"pod-{pod}" / "agent.ttrpc" for pod in range(pods)])

    def relay_command(self, folder: Path) -> list[str]:
        """The relay of this folder; another one takes over from it."""
        sockets = folder / "run"
        return launch.command(
            hypervisor_socket=str(sockets / "hypervisor.sock"),
            pods_dir=str(sockets / "pods"),
            run_dir=str(sockets),
            state_dir=str(folder / "state"),
            extra=("--niceness", str(self.niceness), *self.flags),
        )

    async def _open_links(self, control: Path, *, ports: Sequence[int], pods: int) -> None:
        client = await connect(str(control))
        for pod in range(pods):
            opening = self.opening(f"pod-{pod}", ports[pod % len(ports)])
            await client.call("caa.relay.v1.AgentLinks/Open", opening, timeout=10.0)
        await client.close()

    def opening(self, name: str, port: int) -> relay.OpenRequest:
        """What the node asks for one pod."""
        return relay.OpenRequest(
            sandbox_id=name, addresses=["127.0.0.1"], port=port, server_name=SERVER_NAME,
            ca_file=str(self.certificates / "ca.pem"), cert_file=str(self.certificates / "client.pem"),
            key_file=str(self.certificates / "client.key"),
        )  # fmt: skip


def all_hops(programs: Programs, certificates: Path, *, niceness: int) -> Sequence[Hops]:
    """Ours first, then what it is compared with; `plain` is ours without resumable sessions."""
    return (
        Ours(certificates, niceness),
        Ours(certificates, niceness, "plain", ("--no-session",)),
        Compiled("c", programs.c_relay, certificates),
        Compiled("go", programs.go_proxy, certificates),
    )


@dataclass(frozen=True)
class Chain:
    """Everything between a load client and an agent: where to call, and the hops' processes."""

    socket: Path
    hops: Sequence[Program]


@contextmanager
def agent(programs: Programs, folder: Path) -> Iterator[Path]:
    """The agent at the end of a chain; yields its socket."""
    socket, log = folder / "agent.sock", folder / "agent.log"
    with started([str(programs.agent), str(socket)], log):
        wait_until(lambda: listens(socket), "the agent", log)
        yield socket


@contextmanager
def chain(hops: Hops | None, programs: Programs, folder: Path) -> Iterator[Chain]:
    """A fresh chain for one measurement; None is the direct way."""
    with ExitStack() as stack:
        end = stack.enter_context(agent(programs, folder))
        if hops is None:
            yield Chain(end, ())
            return
        port = free_port()
        guest = stack.enter_context(hops.guest(folder, port=port, agent=end))
        worker = stack.enter_context(hops.worker(folder, ports=[port], pods=1))
        yield Chain(worker.sockets[0], (worker.program, guest))
