"""A store that has lost its records: what runs is found again by what relay and cloud say, and can be stopped."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from caa.errors import NetworkError, NotFound, ProviderError, StateError, Unavailable
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
        store=bench.store,
        network=bench.network,
        links=bench.links,
        provider=bench.provider,
        owner=OWNER,
        clock=bench.clock,
        boot_id=bench.boot_id,
    )


async def damaged(bench: Any) -> None:
    """One runs, one is only created; then the node dies and its records are gone."""
    bench.ca = "3"
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    await bench.service.create(TWO, bench.pod("two"))
    bench.store.rows.clear()
    await bench.restart()


async def stopped(bench: Any) -> None:
    await bench.service.stop(ONE)
    async with asyncio.timeout(10):
        await bench.service.settled()
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_what_runs_is_found_and_can_be_stopped(bench: Any) -> None:
    await damaged(bench)
    await rebuild(bench).until_done("the store was lost")
    (record,) = bench.store.rows.values()
    assert (record.id, record.phase, record.instance) == (ONE, Phase.RUNNING, "i-1")
    assert record.instance_name == "podvm-web-aaaaaaaa"
    assert record.ca == "3", "the relay knows which CA the pod VM trusts"
    assert bench.provider.living.keys() == {"i-1"}
    await stopped(bench)


async def test_nothing_of_it_is_missing(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    before = bench.store.rows[ONE]
    bench.store.rows.clear()
    bench.store.index = 0
    await bench.restart()
    await rebuild(bench).until_done("the store was lost")
    after = bench.store.rows[ONE]
    same = ("pod", "network", "tunnel", "addresses", "instance", "instance_name", "owner", "provider", "reached")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert await bench.service.wait_instance("web", "default", wait=False, deadline=None) == "i-1"
    assert bench.store.index == 1


async def test_who_waits_for_its_instance_is_told(bench: Any) -> None:
    await damaged(bench)
    waiting = asyncio.create_task(bench.service.wait_instance("web", "default", wait=True, deadline=None))
    await asyncio.sleep(0)
    await rebuild(bench).until_done("the store was lost")
    assert await waiting == "i-1"


async def test_a_tunnel_that_says_nothing_is_known_by_its_pod_vm(bench: Any) -> None:
    """One that an earlier version built."""
    await damaged(bench)
    bench.network.stands = {path: replace(one, whose=None) for path, one in bench.network.stands.items()}
    await rebuild(bench).until_done("the store was lost")
    record = bench.store.rows[ONE]
    assert (record.pod.netns, record.pod.pod_name) == ("/run/netns/web", "")
    assert record.tunnel is not None
    await stopped(bench)


async def test_without_the_cloud_the_tunnel_names_pod_and_address(bench: Any) -> None:
    await damaged(bench)
    bench.faults.before["provider.list_owned"] = ProviderError("throttled")
    bench.faults.times["provider.list_owned"] = 1
    await rebuild(bench).until_done("the store was lost")
    record = bench.store.rows[ONE]
    assert (record.instance_name, [str(one) for one in record.addresses]) == ("podvm-web-aaaaaaaa", ["192.0.2.10"])
    await stopped(bench)


async def test_namespaces_that_cannot_be_looked_at(bench: Any) -> None:
    await damaged(bench)
    bench.faults.before["network.standing"] = NetworkError("no netlink")
    await rebuild(bench).until_done("the store was lost")
    assert bench.store.rows[ONE].instance == "i-1"


async def test_no_new_tunnel_takes_the_id_of_one_that_stands(bench: Any) -> None:
    await damaged(bench)
    bench.store.index = 0
    await rebuild(bench).spare_tunnels()
    await bench.service.create(TWO, bench.pod("two"))
    await bench.service.start(TWO)
    assert len({one.tunnel.vni for one in bench.network.stands.values()}) == 2


async def test_nor_the_id_of_one_whose_pod_vm_may_still_send(bench: Any) -> None:
    """Pods that ended between the last standing one and the loss of the store had higher ids."""
    await damaged(bench)
    bench.store.index = 0
    highest = max(one.tunnel.index for one in bench.network.stands.values())
    await rebuild(bench).spare_tunnels()
    assert await bench.store.next_tunnel_index() > highest + 1000


async def test_with_nothing_standing_the_first_tunnel_is_the_first(bench: Any) -> None:
    await rebuild(bench).spare_tunnels()
    await rebuild(bench).until_done("there was no store")
    assert await bench.store.next_tunnel_index() == 0
    assert "provider.list_owned" not in bench.faults.calls, "a new node asks nobody but the relay"


async def test_what_was_only_created_is_made_anew(bench: Any) -> None:
    await damaged(bench)
    await rebuild(bench).until_done("the store was lost")
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
    await rebuild(bench).until_done("the store was lost")
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
    await rebuild(bench).until_done("the store was lost")
    assert bench.clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert list(bench.store.rows) == [ONE]


async def test_a_disk_that_refuses_costs_no_pod_its_life(bench: Any) -> None:
    await damaged(bench)
    bench.faults.before["store.add"] = StateError("disk full")
    bench.faults.times["store.add"] = 2
    await rebuild(bench).until_done("the store was lost")
    assert list(bench.store.rows) == [ONE]
    assert bench.provider.living.keys() == {"i-1"}


async def test_what_is_known_stays_as_it_is(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    before = bench.store.rows[ONE]
    await rebuild(bench).until_done("the store was lost")
    assert bench.store.rows == {ONE: before}


async def test_an_instance_without_a_link_is_an_orphan(bench: Any) -> None:
    await damaged(bench)
    bench.links.opened.clear()
    await rebuild(bench).until_done("the store was lost")
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
