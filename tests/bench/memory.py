"""What a pod costs the first hop, what the forwarder costs a pod VM, and how soon the forwarder listens."""

import socket
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hops import Hops, agent, chain
from tests.bench.loads import LOADS, run_load
from tests.bench.processes import free_port
from tests.bench.programs import Programs

# Request{service, method, payload} of a Check and of a 32 KiB ReadStdout, stream ids 1 and 3.
CHECK = b"\n\x0bgrpc.Health\x12\x05Check"
READ = b"\n\x11grpc.AgentService\x12\nReadStdout\x1a\x0a\n\x01c\x12\x01c\x18\x80\x80\x02"
PODS_A_GUEST = 25
SETTLE = 2.0  # seconds in which a runtime gives back what a handshake or a call made it take


@dataclass(frozen=True)
class PodCost:
    """KiB of the first hop's own memory per pod."""

    idle: float
    attached: float


def pod_costs(ways: Sequence[Hops], programs: Programs, *, pods: int) -> Mapping[str, PodCost]:
    """The slope between a quarter of `pods` and all of them.

    The far end is the compiled guest hop for all ways but ours. That one offers no session, so ours meets its own
    forwarder; one of those takes no more than `PODS_A_GUEST` links.
    """
    far = next(way for way in ways if way.name == "c")
    return {way.name: _pod_cost(way, way if way.name == "ours" else far, programs, pods=pods) for way in ways}


def _pod_cost(way: Hops, far: Hops, programs: Programs, *, pods: int) -> PodCost:
    few = pods // 4  # not 1: what a process takes once, in chunks, is no pod's
    some, many = (_worker_memory(way, far, programs, pods=count) for count in (few, pods))
    return PodCost(*((b - a) / (pods - few) for a, b in zip(some, many, strict=True)))


def _worker_memory(way: Hops, far: Hops, programs: Programs, *, pods: int) -> tuple[int, int]:
    """KiB with every link up and nobody attached, then with a shim on each."""
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as name, ExitStack() as stack:
        near_folder, far_folder = Path(name, "near"), Path(name, "far")
        near_folder.mkdir()
        far_folder.mkdir()
        end = stack.enter_context(agent(programs, far_folder))
        ports = [free_port() for _ in range(0, pods, PODS_A_GUEST if far.name == "ours" else pods)]
        for port in ports:
            stack.enter_context(far.guest(far_folder, port=port, agent=end))
        worker = stack.enter_context(way.worker(near_folder, ports=ports, pods=pods))
        time.sleep(SETTLE)
        idle = worker.program.memory_kib()
        for path in worker.sockets:
            attach(stack.enter_context(socket.socket(socket.AF_UNIX)), path)
        time.sleep(SETTLE)
        return idle, worker.program.memory_kib()


def attach(shim: socket.socket, path: Path) -> None:
    """Connect as a shim does and wait for the answers to one Check and one read."""
    shim.settimeout(10)
    shim.connect(str(path))
    for stream, body in ((1, CHECK), (3, READ)):
        ask(shim, stream, body)


def ask(shim: socket.socket, stream: int, body: bytes = CHECK) -> None:
    """One call and its answer, which must be the one to this call."""
    shim.sendall(len(body).to_bytes(4, "big") + stream.to_bytes(4, "big") + b"\x01\x00" + body)
    head = _exactly(shim, 10)
    _exactly(shim, int.from_bytes(head[:4], "big"))
    if int.from_bytes(head[4:8], "big") != stream:
        raise ConnectionError(f"the answer to another call than {stream}")


def _exactly(shim: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = shim.recv(count - len(data))
        if not more:
            raise ConnectionError("the hop closed a shim's connection")
        data += more
    return data


@dataclass(frozen=True)
class ForwarderCost:
    """Medians: KiB resident while listening and after traffic, milliseconds from exec to the first accept."""

    listening: float
    after_traffic: float
    start_ms: float


def forwarder_costs(ways: Sequence[Hops], programs: Programs, *, rounds: int) -> Mapping[str, ForwarderCost]:
    """The second hop alone, interleaved."""
    seen: dict[str, list[tuple[float, float, float]]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            seen[way.name].append((*_forwarder_rss(way, programs), _start_ms(way, programs)))
    return {
        name: ForwarderCost(*(statistics.median(c) for c in zip(*rows, strict=True))) for name, rows in seen.items()
    }


def _start_ms(way: Hops, programs: Programs) -> float:
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as name, agent(programs, Path(name)) as end:
        begun = time.perf_counter()
        with way.guest(Path(name), port=free_port(), agent=end):
            return (time.perf_counter() - begun) * 1e3


def _forwarder_rss(way: Hops, programs: Programs) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as name, chain(way, programs, Path(name)) as target:
        forwarder = target.hops[1]
        listening = forwarder.rss_kib()
        for load in (LOADS[1], LOADS[-1]):
            run_load(load, target, client=programs.load, seconds=0.5)
        return listening, forwarder.rss_kib()
