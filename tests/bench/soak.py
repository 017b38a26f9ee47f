"""Memory and descriptors over many pods that come and go through one relay, and over many hand-overs in a chain."""

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from caa.wire.client import connect
from caa.wire.proto import relay
from tests.bench.handover import agent_at
from tests.bench.hops import Ours
from tests.bench.memory import ask, attach
from tests.bench.processes import Program, free_port, started, wait_until

VISITS, MOVES = 10_000, 1_000
PODS = 4  # that go through every hand-over, and come at once
WARM_UP = 10  # hand-overs or, by 10, visits after which nothing may grow any more


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    name: str
    rss_kib: int
    descriptors: int


def held(name: str, program: Program) -> Held:
    """By now."""
    return Held(name, program.rss_kib(), len(list(Path(f"/proc/{program.process.pid}/fd").iterdir())))


@dataclass(frozen=True)
class Growth:
    """The same process, or the same role, early and at the end."""

    what: str
    early: Held
    late: Held


def come_and_go(certificates: Path, agent_program: Path, *, count: int, say: Callable[[str], None]) -> Sequence[Growth]:
    """Pods come, are called and go: Open, attach, Check, a 32 KiB read, hang up, Close; `PODS` at a time."""
    with _place(certificates, agent_program) as (folder, ours, guest, port), ExitStack() as stack:
        near = stack.enter_context(ours.worker(folder, ports=[port], pods=0))
        early: list[Held] = []
        for done in range(0, count, PODS):
            asyncio.run(_visit(folder, ours, port, names=[f"visitor-{done + at}" for at in range(PODS)]))
            if done >= WARM_UP * 10 and not early:
                early = [held("relay", near.program), held("forwarder", guest)]
            if not done % 1000:
                say(f"pod {done}: {held('relay', near.program)}, {held('forwarder', guest)}")
        late = [held("relay", near.program), held("forwarder", guest)]
    return [Growth(f"{count} pods come and gone", one, two) for one, two in zip(early, late, strict=True)]


async def _visit(folder: Path, ours: Ours, port: int, *, names: Sequence[str]) -> None:
    client = await connect(str(folder / "run" / "relay.sock"))
    for name in names:
        await client.call("caa.relay.v1.AgentLinks/Open", ours.opening(name, port), timeout=10.0)
    for name in names:
        with socket.socket(socket.AF_UNIX) as shim:
            attach(shim, folder / "run" / "pods" / name / "agent.ttrpc")
    for name in names:
        await client.call("caa.relay.v1.AgentLinks/Close", relay.CloseRequest(sandbox_id=name), timeout=10.0)
    await client.close()


def hand_on(certificates: Path, agent_program: Path, *, count: int, say: Callable[[str], None]) -> Sequence[Growth]:
    """Relay after relay takes over the same pods, each of which is called between two of them."""
    with _place(certificates, agent_program) as (folder, ours, guest, port), ExitStack() as stack:
        near = stack.enter_context(ours.worker(folder, ports=[port], pods=PODS))
        shims = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in near.sockets]
        for shim, path in zip(shims, near.sockets, strict=True):
            attach(shim, path)
        program, log = near.program, folder / "relays.log"
        early: list[Held] = []
        for number in range(count):
            new = stack.enter_context(started(ours.relay_command(folder), log))
            if program.process.wait(30):
                raise RuntimeError(f"hand-over {number} has failed:\n{log.read_text()}")
            program = new
            wait_until(lambda: "took over" in log.read_text(), "the hand-over", log)
            for shim in shims:
                ask(shim, 5 + 2 * number)
            if number + 1 == WARM_UP:
                early = [held("relay", program), held("forwarder", guest)]
            if not number % 100:
                say(f"hand-over {number}: {held('relay', program)}, {held('forwarder', guest)}")
        late = [held("relay", program), held("forwarder", guest)]
    return [Growth(f"{count} hand-overs", one, two) for one, two in zip(early, late, strict=True)]


@contextmanager
def _place(certificates: Path, agent_program: Path) -> Iterator[tuple[Path, Ours, Program, int]]:
    """An agent and a forwarder; the folder, how to start a relay, the forwarder's process and port."""
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as name, ExitStack() as stack:
        folder, ours, port = Path(name), Ours(certificates, 0), free_port()
        end = stack.enter_context(agent_at(agent_program, folder))
        yield folder, ours, stack.enter_context(ours.guest(folder, port=port, agent=end)), port


def measure(certificates: Path, agent_program: Path, *, visits: int, moves: int, say: Callable[[str], None]) -> str:
    """The table of both."""
    grown = [
        *come_and_go(certificates, agent_program, count=visits, say=say),
        *hand_on(certificates, agent_program, count=moves, say=say),
    ]
    lines = [
        "| what | process | RSS early, KiB | RSS late, KiB | descriptors early | descriptors late |",
        "|---|---|---|---|---|---|",
        *map(_row, grown),
    ]
    return "\n".join(lines)


def _row(grown: Growth) -> str:
    early, late = grown.early, grown.late
    cells = (grown.what, early.name, early.rss_kib, late.rss_kib, early.descriptors, late.descriptors)
    return f"| {' | '.join(map(str, cells))} |"
