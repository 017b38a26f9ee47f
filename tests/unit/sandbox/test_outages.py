"""Links that are down: when the cloud is asked, what it takes to end a pod, and that nothing of it is left."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import ProviderUnavailable, StateError, Unavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import InstanceState
from caa.model.sandbox import Phase
from caa.sandbox import outages
from caa.sandbox.outages import AT_ONCE, FIRST_PAUSE, LONGEST_PAUSE, LOOK_EVERY, SURE_AFTER, Outage, Outages, reason

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)
FIRST = InstanceId("i-1")
RUNNING, STOPPED, ABSENT, UNKNOWN = InstanceState
GONE = {STOPPED, ABSENT}


class Site:
    """The bench with one running sandbox and an `Outages` on its clock."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.told = bench.provider.states
        self.one = Outages(
            service=bench.service,
            links=bench.links,
            provider=bench.provider,
            clock=bench.clock,
            now=lambda: float(bench.clock.now),
        )

    async def running(self, sandbox: SandboxId = ONE) -> None:
        await self.bench.service.create(sandbox, self.bench.pod(sandbox[:4]))
        await self.bench.service.start(sandbox)
        self.bench.links.dark.add(sandbox)

    async def look(self, after: float = 0.0) -> list[SandboxId]:
        self.bench.clock.now += after
        ended = list(await self.one.once())
        await self.bench.service.settled()
        return ended

    def asked(self) -> int:
        return int(self.bench.faults.calls.count("provider.state"))

    def lives(self, sandbox: SandboxId = ONE) -> bool:
        return sandbox in self.bench.store.rows and self.bench.store.rows[sandbox].phase is Phase.RUNNING

    def nothing_left(self) -> None:
        assert self.bench.left_over() == {}
        assert self.bench.store.rows == {}


@pytest.fixture
async def site(bench: Any) -> Site:
    made = Site(bench)
    await made.running()
    return made


@given(st.lists(st.sampled_from(InstanceState), max_size=2))
def test_only_two_answers_in_a_row_end_a_pod(answers: list[InstanceState]) -> None:
    assert bool(reason(FIRST, answers)) == (len(answers) == 2 and set(answers) <= GONE)


@pytest.mark.parametrize(
    ("last", "words"), [(ABSENT, "gone: the cloud has no i-1"), (STOPPED, "i-1 does not run any more")]
)
def test_the_reason_names_the_pod_vm(last: InstanceState, words: str) -> None:
    assert words in reason(FIRST, [STOPPED, last])


def test_the_pause_grows_to_its_bound() -> None:
    outage, pauses = Outage(ask_at=0), []
    for _ in range(5):
        outage = outage.asked(100)
        pauses.append(outage.ask_at - 100)
    assert pauses == [FIRST_PAUSE, 10, 20, LONGEST_PAUSE, LONGEST_PAUSE]


async def test_a_pod_vm_that_was_deleted(site: Site) -> None:
    site.bench.provider.living.clear()
    assert await site.look() == [ONE]
    site.nothing_left()
    assert site.bench.links.reasons == {ONE: "its pod VM is gone: the cloud has no i-1"}


async def test_one_that_has_crashed_is_deleted_too(site: Site) -> None:
    site.told[FIRST] = STOPPED
    assert await site.look() == [ONE]
    site.nothing_left()
    assert "does not run any more" in site.bench.links.reasons[ONE]


@pytest.mark.parametrize("told", [RUNNING, UNKNOWN])
async def test_a_cut_is_waited_for(site: Site, told: InstanceState) -> None:
    site.told[FIRST] = told
    for _ in range(100):
        assert await site.look(after=LOOK_EVERY) == []
    assert site.lives()
    assert site.asked() == 9  # after 2, 8, 18, 38, 68, 98 ... 188 s of 200


async def test_a_link_that_is_up_is_proof_enough(site: Site) -> None:
    site.bench.provider.living.clear()
    site.bench.links.dark.clear()
    assert await site.look() == []
    assert site.asked() == 0


async def test_an_answer_that_is_taken_back_ends_no_pod(site: Site) -> None:
    site.told[FIRST] = ABSENT

    async def corrected(seconds: float) -> None:
        assert seconds == SURE_AFTER
        site.told[FIRST] = RUNNING

    site.bench.clock.sleep = corrected
    assert await site.look() == []
    assert site.asked() == 2
    assert site.lives()


async def test_a_link_that_comes_back_while_the_cloud_is_asked_ends_no_pod(site: Site) -> None:
    site.told[FIRST] = STOPPED

    async def back(_: float) -> None:
        site.bench.links.dark.clear()

    site.bench.clock.sleep = back
    assert await site.look() == []
    assert site.lives()


@pytest.mark.parametrize("error", [ProviderUnavailable("throttled"), ZeroDivisionError("a mistake in the driver")])
async def test_a_cloud_that_cannot_be_asked_costs_no_pod_its_life(site: Site, error: Exception) -> None:
    site.bench.provider.living.clear()
    site.bench.faults.before["provider.state"] = error
    assert await site.look() == []
    assert site.lives()
    site.bench.faults.before.clear()
    assert await site.look(after=FIRST_PAUSE) == [ONE]
    site.nothing_left()


async def test_a_cloud_that_never_answers_costs_no_pod_its_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PATIENCE", 0.01)
    site.bench.provider.living.clear()
    site.bench.faults.gate("provider.state")
    assert await site.look() == []
    assert site.lives()


async def test_a_relay_that_is_away_costs_no_pod_its_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> Any:
        raise Unavailable("no relay")

    site.bench.provider.living.clear()
    monkeypatch.setattr(site.bench.links, "list", away)
    assert await site.look() == []
    assert (site.asked(), site.lives()) == (0, True)


async def test_a_link_that_the_relay_does_not_have_is_not_asked_about(site: Site) -> None:
    """A start, a stop, or the recovery of a new node has it in hand."""
    site.bench.links.opened.clear()
    assert await site.look() == []
    assert site.asked() == 0


async def test_a_stop_that_comes_meanwhile_wins(site: Site) -> None:
    site.told[FIRST] = STOPPED

    async def stopped(_: float) -> None:
        await site.bench.service.stop(ONE)

    site.bench.clock.sleep = stopped
    assert await site.look() == []
    site.nothing_left()


async def test_a_disk_that_refuses_does_not_keep_a_dead_pod(site: Site) -> None:
    site.bench.provider.living.clear()
    site.bench.faults.before["store.put"] = StateError("disk full")
    assert await site.look() == [ONE]
    site.nothing_left()


async def test_a_restarted_node_ends_what_had_gone_and_leaves_what_is_cut(site: Site) -> None:
    await site.running(TWO)
    del site.bench.provider.living[FIRST]
    await site.bench.restart()
    again = Site(site.bench)
    assert await again.look() == [ONE]
    assert not again.lives(ONE)
    assert again.lives(TWO)


async def test_many_are_asked_about_a_few_at_a_time_and_the_new_ones_first(bench: Any) -> None:
    site = Site(bench)
    names = [SandboxId(f"{number:04d}" * 16) for number in range(AT_ONCE + 4)]
    for name in names:
        await site.running(name)
    await site.look()
    assert site.asked() == AT_ONCE
    await site.look()
    assert site.asked() == len(names)
    await site.running(ONE)
    bench.provider.living.popitem()
    assert await site.look(after=2 * FIRST_PAUSE) == [ONE]  # of all that are due


async def test_each_look_waits(site: Site) -> None:
    pauses = site.bench.clock.slept
    looking = asyncio.create_task(site.one.forever())
    while site.asked() < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    looking.cancel()
    assert set(pauses) == {LOOK_EVERY}
    assert site.lives()
