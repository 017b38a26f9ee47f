"""Instances that nobody knows: which they are, how old they must be, and that everything else is left alone."""

from typing import Any

from caa.errors import ProviderError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Instance, Owner
from caa.sandbox.orphans import Counts, Rules, Sweep, unknown

ONE = SandboxId("a" * 64)


def instance(number: int, *, name: str = "", sandbox: str = "", created_at: float = 0.0) -> Instance:
    return Instance(
        id=InstanceId(f"x-{number}"),
        name=name or f"vm-{number}",
        addresses=(),
        sandbox=SandboxId(sandbox) if sandbox else None,
        created_at=created_at,
    )


def sweep(bench: Any, **rules: Any) -> Sweep:
    return Sweep(
        provider=bench.provider,
        store=bench.store,
        owner=Owner(cluster="c1", node="n1"),
        clock=bench.clock,
        rules=Rules(grace=600, **rules),
    )


def put(bench: Any, *instances: Instance) -> None:
    bench.provider.living.update({one.id: one for one in instances})


async def test_what_a_record_claims_is_no_orphan(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    (record,) = bench.service.records()
    mine = [
        Instance(id=record.instance, name="renamed", addresses=()),
        instance(2, name=record.instance_name),
        instance(3, sandbox=ONE),
    ]
    assert unknown([*mine, instance(4)], [record]) == [instance(4)]


async def test_only_the_old_are_removed(bench: Any) -> None:
    bench.clock.now = 10_000.0
    put(bench, instance(1, created_at=9_400.0), instance(2, created_at=9_401.0))
    assert (await sweep(bench).once()).removed == 1
    assert list(bench.provider.living) == ["x-2"]


async def test_without_an_age_it_counts_from_the_first_sight(bench: Any) -> None:
    put(bench, instance(1))
    one = sweep(bench)
    assert (await one.once()).removed == 0
    bench.clock.now += 599
    assert (await one.once()).removed == 0
    bench.clock.now += 1
    assert (await one.once()).removed == 1


async def test_one_that_went_and_came_is_seen_anew(bench: Any) -> None:
    put(bench, instance(1))
    one = sweep(bench)
    await one.once()
    bench.provider.living.clear()
    bench.clock.now += 300
    await one.once()
    put(bench, instance(1))
    bench.clock.now += 400
    assert (await one.once()).removed == 0


async def test_a_refused_removal_does_not_stop_the_sweep(bench: Any) -> None:
    put(bench, instance(1, created_at=1.0), instance(2, created_at=1.0))
    bench.faults.before["provider.delete"] = ProviderError("busy")
    bench.faults.times["provider.delete"] = 1
    one = sweep(bench)
    assert (await one.once()).removed == 1
    assert (await one.once()).removed == 1
    assert bench.provider.living == {}


async def test_what_was_found_is_counted(bench: Any) -> None:
    bench.clock.now = 10_000.0
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    put(bench, *(instance(number, created_at=1.0) for number in range(3)), instance(9, created_at=9_999.0))
    bench.faults.before["provider.delete"] = ProviderError("busy")
    bench.faults.times["provider.delete"] = 1
    assert await sweep(bench).once() == Counts(owned=5, orphans=4, young=1, removed=2, failed=1)


async def test_a_dry_run_only_says_it(bench: Any) -> None:
    put(bench, instance(1, created_at=1.0))
    bench.clock.now = 10_000.0
    assert await sweep(bench, dry_run=True).once() == Counts(owned=1, orphans=1)
    assert list(bench.provider.living) == ["x-1"]
