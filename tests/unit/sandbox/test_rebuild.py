"""A store that has lost its records: what runs is found again by what relay and cloud say, and can be stopped."""

import asyncio
from typing import Any

import pytest

from caa.errors import NotFound, ProviderError, StateError, Unavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Instance, Owner
from caa.model.sandbox import Phase
from caa.sandbox.orphans import Rules, Sweep
from caa.sandbox.ports import LinkState
from caa.sandbox.rebuild import Rebuild, instance_of

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)
OWNER = Owner(cluster="c1", node="n1")


def rebuild(bench: Any) -> Rebuild:
    return Rebuild(
        service=bench.service,
        links=bench.links,
        provider=bench.provider,
        owner=OWNER,
        clock=bench.clock,
        boot_id=bench.boot_id,
    )


async def damaged(bench: Any) -> None:
    """One runs, one is only created; then the node dies and its records are gone."""
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    await bench.service.create(TWO, bench.pod("two"))
    bench.store.rows.clear()
    await bench.restart()


async def stopped(bench: Any) -> None:
    await bench.service.stop(ONE)
    async with asyncio.timeout(10):
        await bench.service.settled()
    # The tunnel is not known any more: the runtime removes the namespace that it is in.
    assert (bench.provider.living, bench.links.opened, bench.ledger.owned) == ({}, {}, {})
    assert bench.store.rows == {}


async def test_what_runs_is_found_and_can_be_stopped(bench: Any) -> None:
    await damaged(bench)
    await rebuild(bench).until_done()
    (record,) = bench.store.rows.values()
    assert (record.id, record.phase, record.instance) == (ONE, Phase.RUNNING, "i-1")
    assert record.instance_name == "podvm-web-aaaaaaaa"
    assert bench.provider.living.keys() == {"i-1"}
    await stopped(bench)


async def test_what_was_only_created_is_made_anew(bench: Any) -> None:
    await damaged(bench)
    await rebuild(bench).until_done()
    with pytest.raises(NotFound):
        await bench.service.start(TWO)
    await bench.service.create(TWO, bench.pod("two"))
    await bench.service.start(TWO)
    assert len(bench.provider.living) == 2


@pytest.mark.parametrize("error", [ProviderError("throttled"), ZeroDivisionError("a mistake in the driver")])
async def test_a_cloud_that_cannot_be_asked(bench: Any, error: Exception) -> None:
    await damaged(bench)
    bench.faults.before["provider.list_owned"] = error
    bench.faults.times["provider.list_owned"] = 1
    await rebuild(bench).until_done()
    (record,) = bench.store.rows.values()
    assert (record.id, record.instance) == (ONE, None)
    await stopped(bench)


async def test_a_relay_that_is_away_is_waited_for(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await damaged(bench)
    answers: list[Any] = [Unavailable("no relay")] * 8 + [[LinkState(sandbox=ONE, connected=False, shims=1)]]

    async def answer() -> list[LinkState]:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        links: list[LinkState] = one
        return links

    monkeypatch.setattr(bench.links, "list", answer)
    await rebuild(bench).until_done()
    assert bench.clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert list(bench.store.rows) == [ONE]


async def test_a_disk_that_refuses_costs_no_pod_its_life(bench: Any) -> None:
    await damaged(bench)
    bench.faults.before["store.add"] = StateError("disk full")
    bench.faults.times["store.add"] = 2
    await rebuild(bench).until_done()
    assert list(bench.store.rows) == [ONE]
    assert bench.provider.living.keys() == {"i-1"}


async def test_what_is_known_stays_as_it_is(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    before = bench.store.rows[ONE]
    await rebuild(bench).until_done()
    assert bench.store.rows == {ONE: before}


async def test_an_instance_without_a_link_is_an_orphan(bench: Any) -> None:
    await damaged(bench)
    bench.links.opened.clear()
    await rebuild(bench).until_done()
    assert bench.store.rows == {}
    sweep = Sweep(provider=bench.provider, store=bench.store, owner=OWNER, clock=bench.clock, rules=Rules(grace=0))
    assert (await sweep.once()).removed == 1


def instance(name: str, sandbox: SandboxId | None) -> Instance:
    return Instance(id=InstanceId(name), name=name, addresses=(), sandbox=sandbox)


@pytest.mark.parametrize(
    ("instances", "found"),
    [
        ([], None),
        ([instance("x", ONE)], "x"),
        ([instance("podvm-web-aaaaaaaa", None)], "podvm-web-aaaaaaaa"),
        ([instance("podvm-web-aaaaaaaa", TWO)], None),
        ([instance("podvm-web-aaaaaaaa", None), instance("y", ONE)], "y"),
        ([instance("podvm-web-bbbbbbbb", None)], None),
    ],
)
def test_which_instance_is_whose(instances: list[Instance], found: str | None) -> None:
    one = instance_of(ONE, instances)
    assert (one.id if one else None) == found
