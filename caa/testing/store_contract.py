"""The executable form of `StateStore`'s docstrings: subclass it, give it a fixture `store`, and pytest runs it."""

import asyncio
from dataclasses import replace

import pytest

from caa.errors import StateError
from caa.model.ids import InstanceId, SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.sandbox.ports import StateStore


def record(name: str = "a") -> Sandbox:
    """A small valid record whose id is `name`."""
    return Sandbox(
        id=SandboxId(name),
        pod=PodSpec(pod_name="p", pod_namespace="n", netns="/run/netns/x"),
        phase=Phase.CREATED,
        instance_name=f"podvm-p-{name}",
        token="00",
        boot_id="boot",
        created_at=1.0,
    )


class StoreContract:
    """What every `StateStore` does. The subclass gives a fixture `store` with an empty one."""

    async def test_what_is_added_is_there(self, store: StateStore) -> None:
        await store.add(record())
        assert await store.get(SandboxId("a")) == record()
        assert list(await store.all()) == [record()]

    async def test_the_absent_is_none(self, store: StateStore) -> None:
        assert await store.get(SandboxId("a")) is None
        assert list(await store.all()) == []

    async def test_adding_twice_is_refused_and_changes_nothing(self, store: StateStore) -> None:
        await store.add(record())
        with pytest.raises(StateError):
            await store.add(replace(record(), phase=Phase.RUNNING))
        assert await store.get(SandboxId("a")) == record()

    async def test_put_replaces(self, store: StateStore) -> None:
        await store.add(record())
        changed = replace(record(), phase=Phase.RUNNING, instance=InstanceId("i-1"))
        await store.put(changed)
        assert list(await store.all()) == [changed]

    async def test_put_of_the_absent_is_refused(self, store: StateStore) -> None:
        with pytest.raises(StateError):
            await store.put(record())
        await store.add(record())
        await store.remove(SandboxId("a"))
        with pytest.raises(StateError):
            await store.put(record())
        assert list(await store.all()) == []

    async def test_remove_of_the_absent_is_success(self, store: StateStore) -> None:
        await store.add(record())
        await store.remove(SandboxId("a"))
        await store.remove(SandboxId("a"))
        assert list(await store.all()) == []

    async def test_indexes_are_never_given_twice(self, store: StateStore) -> None:
        given = await asyncio.gather(*(store.next_tunnel_index() for _ in range(20)))
        assert sorted(given) == list(range(20))

    async def test_many_at_once(self, store: StateStore) -> None:
        names = [f"s{number:03}" for number in range(50)]
        await asyncio.gather(*(store.add(record(name)) for name in names))
        await asyncio.gather(*(store.remove(SandboxId(name)) for name in names[::2]))
        assert {one.id for one in await store.all()} == set(names[1::2])

    async def test_an_index_in_use_and_those_before_it_are_not_given(self, store: StateStore) -> None:
        await store.use_tunnel_index(41)
        assert await store.next_tunnel_index() == 42
        await store.use_tunnel_index(7)
        assert await store.next_tunnel_index() == 43
