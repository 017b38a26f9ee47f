"""Hand-overs with many pods attached and in use: how long each pod stands still, and what a shim sees of it.

Each pod's pause is measured by the relays: from the moment at which the old one stops serving it to the moment at which
the new one has resumed its session with the pod VM (one clock, CLOCK_MONOTONIC). The new one tells p50, p99 and the
longest in its log. A shim's longest call is measured by load processes, which call all pods in turn all the time.
"""

import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hops import Ours
from tests.bench.memory import PODS_A_GUEST
from tests.bench.processes import Program, free_port, started, wait_until
from tests.bench.programs import ROOT

PODS = (1, 50, 200)
TIMES = 10
LOADS = 2  # load processes
# Calls a second over all pods, and at most a pod: light load, for two cores bear 5 000.
RATE, RATE_A_POD = 1000.0, 200.0
PAUSE_GOAL, CALL_GOAL = 10.0, 50.0  # milliseconds
_TOLD = re.compile(r"(\d+) links stood still: p50 ([\d.]+), p99 ([\d.]+), longest ([\d.]+) ms")


@dataclass(frozen=True)
class Moved:
    """One hand-over: the pods' pauses in milliseconds, and from exec of the new relay to the end of the old one."""

    p50: float
    p99: float
    longest: float
    total: float


@dataclass(frozen=True)
class Result:
    """So many pods: all hand-overs, and the calls (milliseconds) before and around them."""

    pods: int
    moves: Sequence[Moved]
    before: float
    longest_before: float
    longest_call: float
    calls: int


def handovers(certificates: Path, agent_program: Path, *, pods: int, times: int, say: Callable[[str], None]) -> Result:
    """Real relays one after another, real forwarders with sessions, a few pods on each; a load on all."""
    ours = Ours(certificates, -10)
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        end = stack.enter_context(agent_at(agent_program, folder))
        ports = [free_port() for _ in range(0, pods, PODS_A_GUEST)]
        for port in ports:
            stack.enter_context(ours.guest(folder, port=port, agent=end))
        first = stack.enter_context(ours.worker(folder, ports=ports, pods=pods))
        loads = [stack.enter_context(_load(first.sockets[at::LOADS])) for at in range(min(LOADS, pods))]
        seconds = 2.0 + 2 * pods / RATE
        time.sleep(seconds)
        _all(loads, signal.SIGUSR1)
        moves = []
        old = first.program
        for number in range(times):
            new, moved = _move(stack, ours, folder, old=old, number=number)
            moves.append(moved)
            say(f"{pods} pods, hand-over {number + 1}: {moved}")
            old = new
        return _result(pods, moves, [_finish(load) for load in loads])


@contextmanager
def agent_at(program: Path, folder: Path) -> Iterator[Path]:
    """The agent at the end of all pods."""
    socket, log = folder / "agent.sock", folder / "agent.log"
    with started([str(program), str(socket)], log):
        wait_until(socket.exists, "the agent", log)
        yield socket


def _move(stack: ExitStack, ours: Ours, folder: Path, *, old: Program, number: int) -> tuple[Program, Moved]:
    log = folder / f"relay-{number}.log"
    begun = time.monotonic()
    new = stack.enter_context(started(ours.relay_command(folder), log))
    if old.process.wait(60):
        raise RuntimeError(f"the old relay has failed; the new one says:\n{log.read_text()}")
    total = (time.monotonic() - begun) * 1e3
    wait_until(lambda: _TOLD.search(log.read_text()) is not None, "the hand-over", log)
    told = _TOLD.search(log.read_text())
    if told is None:
        raise RuntimeError(log.read_text())
    return new, Moved(*map(float, told.groups()[1:]), total)


@contextmanager
def _load(sockets: Sequence[Path]) -> Iterator[subprocess.Popen[str]]:
    rate = min(RATE / LOADS, RATE_A_POD * len(sockets))
    command = [sys.executable, "-m", "tests.bench.paced", str(rate), *map(str, sockets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "READY\n":
                raise RuntimeError("the load has not begun")
            yield process
        finally:
            process.kill()


def _all(loads: Sequence[subprocess.Popen[str]], number: signal.Signals) -> None:
    for load in loads:
        load.send_signal(number)


def _finish(load: subprocess.Popen[str]) -> list[dict[str, float]]:
    load.terminate()
    said, _ = load.communicate(timeout=60)
    if load.returncode:
        raise RuntimeError("a call was lost or answered wrongly")
    phases: list[dict[str, float]] = json.loads(said)
    return phases


def _result(pods: int, moves: Sequence[Moved], loads: Sequence[Sequence[dict[str, float]]]) -> Result:
    before, around = zip(*loads, strict=True)
    return Result(
        pods,
        moves,
        before=statistics.median(phase["p50"] for phase in before),
        longest_before=max(phase["longest"] for phase in before),
        longest_call=max(phase["longest"] for phase in around),
        calls=int(sum(phase["calls"] for phase in around)),
    )


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        f"{len(results[0].moves)} hand-overs each; milliseconds. p50 is the median of the hand-overs, p99 the worst.",
        "",
        "| pods | pause of a pod p50 | p99 | call p50 before | longest call before | longest call around | in all |",
        "|---|---|---|---|---|---|---|",
        *map(_row, results),
    ]
    return "\n".join(lines)


def _row(result: Result) -> str:
    pause, call = max(move.p99 for move in result.moves), result.longest_call
    cells = (
        str(result.pods),
        f"{statistics.median(move.p50 for move in result.moves):.2f}",
        f"{pause:.2f} (≤ {PAUSE_GOAL:g}: {_verdict(pause <= PAUSE_GOAL)})",
        f"{result.before:.2f}",
        f"{result.longest_before:.1f}",
        f"{call:.1f} (≤ {CALL_GOAL:g}: {_verdict(call <= CALL_GOAL)})",
        f"{statistics.median(move.total for move in result.moves):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _verdict(met: bool) -> str:
    return "pass" if met else "**miss**"


def measure(certificates: Path, agent_program: Path, *, times: int, say: Callable[[str], None]) -> str:
    """The table of hand-overs."""
    return table([handovers(certificates, agent_program, pods=pods, times=times, say=say) for pods in PODS])
