"""Sandboxes nobody attends to: which sign is seen, how long it has to be seen, and that nothing of them is left."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from caa.errors import ProviderError, StepFailed, Unavailable
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.abandoned import LOOK_EVERY, Abandonment, Graces, Sign, sign_of
from caa.sandbox.ports import LinkState, PodState

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)


@dataclass
class Witness:
    says: dict[SandboxId, PodState] = field(default_factory=dict)

    async def state(self, sandbox: Sandbox) -> PodState:
        return self.says.get(sandbox.id, PodState.UNKNOWN)


@dataclass
class Watched:
    """An `Abandonment` whose clock is set by hand; `shims` is what the relay says, None when it is away."""

    bench: Any
    witness: Witness = field(default_factory=Witness)
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    shims: dict[SandboxId, int] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bench.links.list = self.links
        self.one = Abandonment(
            service=self.bench.service,
            links=self.bench.links,
            witness=self.witness,
            graces=Graces(unstarted=600, unopened=120, closed=60),
            now=lambda: self.now,
            sleep=self.passes,
        )

    async def passes(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def links(self) -> list[LinkState]:
        if self.shims is None:
            raise Unavailable("no relay")
        return [LinkState(sandbox=one, connected=True, shims=count) for one, count in self.shims.items()]

    async def look(self, at: float) -> list[SandboxId]:
        self.now = at
        given_up = list(await self.one.once())
        await self.bench.service.settled()
        return given_up


@pytest.fixture
def watched(bench: Any) -> Watched:
    return Watched(bench)


async def running(watched: Watched) -> None:
    await watched.bench.service.create(ONE, watched.bench.pod())
    await watched.bench.service.start(ONE)


def nothing_left(bench: Any) -> None:
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_created_and_never_started(watched: Watched) -> None:
    await watched.bench.service.create(ONE, watched.bench.pod())
    assert await watched.look(0) == []
    assert await watched.look(599) == []
    assert await watched.look(600) == [ONE]
    nothing_left(watched.bench)


async def test_a_failed_start_without_a_stop(watched: Watched) -> None:
    watched.bench.faults.before["provider.create"] = ProviderError("no")
    await watched.bench.service.create(ONE, watched.bench.pod())
    with pytest.raises(StepFailed):
        await watched.bench.service.start(ONE)
    await watched.look(0)
    assert await watched.look(600) == [ONE]
    nothing_left(watched.bench)


async def test_started_and_never_opened(watched: Watched) -> None:
    await running(watched)
    watched.shims = {ONE: 0}
    assert await watched.look(0) == []
    assert await watched.look(119) == []
    assert await watched.look(120) == [ONE]
    nothing_left(watched.bench)


async def test_a_relay_that_has_no_such_link_counts_as_none(watched: Watched) -> None:
    await running(watched)
    await watched.look(0)
    assert await watched.look(120) == [ONE]
    nothing_left(watched.bench)


async def test_a_shim_that_was_killed(watched: Watched) -> None:
    await running(watched)
    watched.shims = {ONE: 2}
    assert await watched.look(0) == []
    assert await watched.look(1000) == []
    watched.shims = {ONE: 0}
    assert await watched.look(1005) == []
    assert await watched.look(1064) == []
    assert await watched.look(1065) == [ONE]
    nothing_left(watched.bench)


async def test_an_attended_pod_lives_for_ever(watched: Watched) -> None:
    await running(watched)
    watched.shims = {ONE: 1}
    for at in range(0, 100_000, 10_000):
        assert await watched.look(at) == []
    assert watched.bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_shim_that_comes_back_in_time_begins_a_new_count(watched: Watched) -> None:
    await running(watched)
    for at, shims in ((0, 1), (5, 0), (60, 0), (63, 1), (68, 0), (127, 0)):
        watched.shims = {ONE: shims}
        assert await watched.look(at) == []
    assert await watched.look(128) == [ONE]


async def test_a_relay_that_is_away_costs_no_pod_its_life(watched: Watched) -> None:
    await running(watched)
    watched.shims = {ONE: 0}
    await watched.look(0)
    watched.shims = None
    assert await watched.look(10_000) == []
    watched.shims = {ONE: 0}
    assert await watched.look(10_005) == []
    assert await watched.look(10_125) == [ONE]


async def test_what_starts_is_left_to_its_caller(watched: Watched) -> None:
    gate = watched.bench.faults.gate("provider.create")
    await watched.bench.service.create(ONE, watched.bench.pod())
    await watched.look(0)
    start = asyncio.create_task(watched.bench.service.start(ONE))
    await watched.bench.faults.entered("provider.create")
    watched.now = 10_000
    assert await watched.one.once() == []
    gate.set()
    await start
    watched.shims = {ONE: 1}
    assert await watched.look(10_005) == []


async def test_a_grace_of_zero_is_for_ever(watched: Watched) -> None:
    watched.one.graces = Graces(unstarted=0, unopened=0, closed=0)
    await running(watched)
    await watched.bench.service.create(TWO, watched.bench.pod("two"))
    await watched.look(0)
    assert await watched.look(1e9) == []


async def test_a_pod_that_still_runs_is_spared(watched: Watched) -> None:
    await running(watched)
    watched.witness.says[ONE] = PodState.RUNS
    await watched.look(0)
    assert await watched.look(10_000) == []
    watched.witness.says.clear()  # Kubernetes cannot be asked any more: the count begins then
    assert await watched.look(10_119) == []
    assert await watched.look(10_120) == [ONE]


async def test_a_pod_that_has_ended_is_not_waited_for(watched: Watched) -> None:
    await running(watched)
    watched.witness.says[ONE] = PodState.ENDED
    watched.shims = {ONE: 1}
    assert await watched.look(0) == []
    watched.shims = {ONE: 0}
    assert await watched.look(5) == [ONE]
    nothing_left(watched.bench)


async def test_a_start_that_comes_at_the_last_moment_wins(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes takes its time to answer, and the StartVM comes meanwhile."""
    await watched.bench.service.create(ONE, watched.bench.pod())

    async def slow(sandbox: Sandbox) -> PodState:
        await watched.bench.service.start(ONE)
        return PodState.ENDED

    monkeypatch.setattr(watched.witness, "state", slow)
    assert await watched.look(0) == []
    assert watched.bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_create_that_comes_again_begins_a_new_count(watched: Watched) -> None:
    await watched.bench.service.create(ONE, watched.bench.pod())
    assert await watched.look(0) == []
    await watched.bench.service.create(ONE, watched.bench.pod())
    assert await watched.look(599) == []
    assert await watched.look(1198) == []
    assert await watched.look(1199) == [ONE]


async def test_a_create_that_comes_again_at_the_last_moment_wins(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.bench.service.create(ONE, watched.bench.pod())

    async def slow(sandbox: Sandbox) -> PodState:
        await watched.bench.service.create(ONE, watched.bench.pod())
        return PodState.ENDED

    monkeypatch.setattr(watched.witness, "state", slow)
    assert await watched.look(0) == []
    assert watched.bench.store.rows[ONE].phase is Phase.CREATED


async def test_a_stop_under_way_is_left_alone(watched: Watched) -> None:
    await running(watched)
    gate = watched.bench.faults.gate("provider.delete")
    await watched.bench.service.stop(ONE)
    await watched.bench.faults.entered("provider.delete")
    assert await watched.one.once() == []
    gate.set()
    await watched.bench.service.settled()
    nothing_left(watched.bench)


async def test_the_relay_is_asked_only_when_something_runs(watched: Watched) -> None:
    watched.shims = None
    await watched.bench.service.create(ONE, watched.bench.pod())
    await watched.look(0)
    assert await watched.look(600) == [ONE]


async def test_each_look_waits_as_long_as_the_rules_of_then_say(watched: Watched) -> None:
    await watched.bench.service.create(ONE, watched.bench.pod())
    looking = asyncio.create_task(watched.one.forever())
    while len(watched.slept) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    watched.one.graces = Graces(unstarted=12, unopened=0, closed=0)
    async with asyncio.timeout(10):
        while watched.bench.store.rows:  # noqa: ASYNC110
            await asyncio.sleep(0)
    looking.cancel()
    assert watched.slept[:4] == [5, 5, 3, 3]
    nothing_left(watched.bench)


@pytest.mark.parametrize(
    ("graces", "pause"),
    [
        (Graces(), LOOK_EVERY),
        (Graces(unstarted=0, unopened=0, closed=0), LOOK_EVERY),
        (Graces(closed=2), 0.5),
        (Graces(unopened=0.001), 0.05),
    ],
)
def test_the_pause_between_two_looks(graces: Graces, pause: float) -> None:
    assert graces.pause() == pause


def test_the_rule_for_every_phase(bench: Any) -> None:
    def told(phase: Phase, shims: int | None, opened: bool) -> Sign | None:
        record = Sandbox(
            id=ONE, pod=bench.pod(), phase=phase, instance_name="x", token="t", boot_id="b", created_at=0.0
        )
        return sign_of(record, shims=shims, opened=opened)

    assert {phase: told(phase, 0, False) for phase in Phase} == {
        Phase.CREATED: Sign.UNSTARTED,
        Phase.STARTING: None,
        Phase.RUNNING: Sign.UNOPENED,
        Phase.FAILED: Sign.UNSTARTED,
        Phase.STOPPING: None,
    }
    assert told(Phase.RUNNING, 0, True) is Sign.CLOSED
    assert told(Phase.RUNNING, 1, True) is None
    assert told(Phase.RUNNING, None, True) is None
