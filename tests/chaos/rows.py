"""The rows: what is done to the node while pods run, and how often in a full and in a short run."""

import asyncio
import importlib.util
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.chaos.cutter import Cutter
from tests.chaos.faults import driver_faults
from tests.chaos.field import Field, Plan, opened
from tests.chaos.forwarders import judge, kill_forwarders
from tests.chaos.load import SERVE
from tests.chaos.report import Outcome
from tests.chaos.traffic import Neighbour

_SILENCE_MS = 1000  # the longest that the pod network may be silent


@dataclass(frozen=True)
class Size:
    """How much of a row is done."""

    times: int
    pods: int
    longest: float  # seconds: between two kills, of a black hole


async def node_kills(plan: Plan, size: Size) -> list[Outcome]:
    """SIGKILL to the node at random moments, its start-up included; traffic crosses the pod network meanwhile."""
    outcome, network = Outcome("node kills"), Outcome("vxlan during node kills")
    async with opened(plan, outcome) as field:
        await field.populate()
        field.visitors.begin()
        await field.standing[0].pod.container("server", SERVE)
        neighbour = await Neighbour.start(field.standing[0].address)
        await _kill(field, size, chance=plan.chance("kills"))
        network.figures = await neighbour.finish()
        await field.finish()
    network.problems += _silences(network.figures)
    return [outcome, network]


async def _kill(field: Field, size: Size, *, chance: random.Random) -> None:
    for _ in range(size.times):
        await asyncio.sleep(chance.uniform(0.02, size.longest))
        _must_run(field, "node")
        await field.daemons.kill("node")
        await asyncio.sleep(chance.choice((0.0, chance.uniform(0, 0.3), chance.uniform(0, 1.0))))
        await field.daemons.start_one("node")
    field.outcome.done = {"kill -9 of the node": size.times}


async def relay_roll_outs(plan: Plan, size: Size) -> list[Outcome]:
    """Another relay takes over, again and again; traffic crosses the pod network meanwhile."""
    return await _roll_outs(plan, size, name="relay roll-outs", replace=lambda field: field.daemons.replace_relay())


async def both_replaced(plan: Plan, size: Size) -> list[Outcome]:
    """Relay and node are replaced at once, as by a DaemonSet with a surge."""
    return await _roll_outs(plan, size, name="both replaced", replace=lambda field: field.daemons.replace_both())


async def _roll_outs(
    plan: Plan, size: Size, *, name: str, replace: Callable[[Field], Awaitable[float]]
) -> list[Outcome]:
    outcome, network = Outcome(name), Outcome(f"vxlan during {name}")
    chance = plan.chance(name)
    async with opened(plan, outcome) as field:
        await field.populate()
        field.visitors.begin()
        await field.standing[0].pod.container("server", SERVE)
        neighbour = await Neighbour.start(field.standing[0].address)
        taken = []
        for _ in range(size.times):
            await asyncio.sleep(chance.uniform(0.02, size.longest))
            taken.append(await replace(field))
            _must_run(field, "node")
        outcome.done = {name: size.times}
        outcome.figures["longest take-over, start of the process included (s)"] = round(max(taken), 2)
        network.figures = await neighbour.finish()
        await field.finish()
    network.problems += _silences(network.figures)
    return [outcome, network]


def _must_run(field: Field, name: str) -> None:
    status = field.daemons.running[name].returncode
    if status is not None:
        field.outcome.problems.append(f"caa {name} ended by itself with {status}")


def _silences(figures: Mapping[str, object]) -> list[str]:
    if not figures:
        return ["the neighbour broke down"]
    found = [str(figures["tcp_error"])] if figures["tcp_error"] else []
    for name in ("ping_silence_ms", "tcp_silence_ms"):
        silence = figures[name]
        assert isinstance(silence, float)
        if silence > _SILENCE_MS:
            found.append(f"{name} is {silence}, more than {_SILENCE_MS}")
    return found


async def cuts(plan: Plan, size: Size) -> list[Outcome]:
    """TCP cuts between relay and forwarders, on every standing pod at the same time."""
    outcome = Outcome("cuts")
    cutter = Cutter(longest_hole=size.longest)
    try:
        async with opened(plan, outcome) as field:
            await cutter.start()
            await field.populate()
            await _cut_all(cutter, outcome, size=size, plan=plan)
            await field.finish()
            await cutter.stop()
    finally:
        await cutter.stop()
    return [outcome]


async def _cut_all(cutter: Cutter, outcome: Outcome, *, size: Size, plan: Plan) -> None:
    async def one(address: str, chance: random.Random) -> None:
        try:
            while sum(cutter.made.values()) < size.times:
                await asyncio.sleep(chance.uniform(0, 1))
                await cutter.cut(address, chance=chance)
        except TimeoutError:
            outcome.problems.append(f"nobody dialled {address} for a minute after a cut")

    addresses = sorted(address for address, wires in cutter.wires.items() if wires)
    await asyncio.gather(*(one(address, plan.chance(address)) for address in addresses))
    outcome.done = {"cuts": sum(cutter.made.values()), **{f"of these {k}": v for k, v in cutter.made.items()}}


async def forwarder_restarts(plan: Plan, size: Size) -> list[Outcome]:
    """SIGKILL to forwarders inside their pod VMs."""
    outcome = Outcome("forwarder restarts")
    async with opened(plan, outcome) as field:
        await field.populate()
        await kill_forwarders(field, times=size.times, longest=size.longest)
        await field.finish()
        judge(outcome, field)
    return [outcome]


@dataclass(frozen=True)
class Row:
    """One row of the table in issue and report. `needs` is the module whose presence makes it possible."""

    act: Callable[[Plan, Size], Awaitable[list[Outcome]]]
    full: Size
    short: Size
    lanes: int
    needs: str = ""
    why: str = ""

    @property
    def available(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


ROWS: Mapping[str, Row] = {
    "node-kills": Row(node_kills, Size(200, 20, 3.0), Size(20, 6, 1.5), 2),
    "relay-roll-outs": Row(relay_roll_outs, Size(50, 20, 3.0), Size(5, 6, 1.5), 2),
    "both-replaced": Row(both_replaced, Size(20, 20, 3.0), Size(3, 6, 1.5), 2),
    "cuts": Row(
        cuts, Size(1000, 20, 15.0), Size(60, 6, 4.0), 0, "caa.datapath.greeter", "links are not resumable sessions yet"
    ),
    "forwarder-restarts": Row(forwarder_restarts, Size(50, 20, 2.0), Size(5, 4, 1.0), 0),
    "driver-faults": Row(driver_faults, Size(1, 1, 0), Size(1, 1, 0), 0),
}
