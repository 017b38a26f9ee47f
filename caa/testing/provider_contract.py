"""The executable form of `Provider`'s docstrings: subclass it, give it a fixture `cloud`, and pytest runs it.

For a driver's author:

    class TestAws(ProviderContract):
        @pytest.fixture
        async def cloud(self) -> AsyncIterator[Cloud]:
            ...start the fake cloud, make the driver...
            yield Cloud(driver=driver, nothing_left=lambda: fake.ledger() == {}, halted=fake.power_off, ...)

`nothing_left` says whether the cloud itself holds nothing any more, however the driver sees it: disks, addresses and
network interfaces too. It is asked at the end of every test, after all instances were deleted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from caa.errors import NotSupported, ProviderError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Severity
from caa.provider.contract import Instance, InstanceState, LaunchRequest, Owner, Provider

OWNER = Owner(cluster="contract", node="worker-1")
OTHER_NODE = Owner(cluster="contract", node="worker-2")
OTHER_CLUSTER = Owner(cluster="another", node="worker-1")
GONE = frozenset({InstanceState.STOPPED, InstanceState.ABSENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A driver with an empty cloud behind it. `user_data` is a document that its pod VMs can boot with.

    `absent` is a well-formed id of an instance that never was. `restarted` makes a second driver over the same cloud,
    as a restarted node would. `halted` ends what runs on an instance behind the driver's back, as a crash would;
    `tells_state` is False where nobody can tell whether a machine runs. A driver that attaches volumes gives `disk`,
    which makes a data volume and tells its id, and `held`, which says whether the cloud has it attached to anything;
    `nothing_left` does not count such disks.
    """

    driver: Provider
    restarted: Callable[[], Provider]
    nothing_left: Callable[[], bool]
    halted: Callable[[Instance], Awaitable[None]]
    tells_state: bool = True
    user_data: bytes = field(default=b"#cloud-config\n", repr=False)
    absent: str = "podvm-nobody-00000000"
    instance_type: str = ""
    disk: Callable[[], str] | None = None
    held: Callable[[str], bool] = bool

    def request(self, name: str = "podvm-web-0a1b2c3d", owner: Owner = OWNER) -> LaunchRequest:
        """A launch request; the sandbox and the token follow from the name."""
        return LaunchRequest(
            name=name,
            sandbox=SandboxId(f"sandbox-{name[-8:]}"),
            owner=owner,
            token=f"token-{name[-8:]}",
            user_data=self.user_data,
            instance_type=self.instance_type,
        )

    @asynccontextmanager
    async def instance(self, request: LaunchRequest | None = None) -> AsyncIterator[Instance]:
        """An instance that is gone at the end of the block, and the proof that it is."""
        made = await self.driver.create(request or self.request())
        try:
            yield made
        finally:
            await self.driver.delete(made.id)
        await self.assert_empty()

    async def assert_empty(self) -> None:
        """Neither the driver nor the cloud knows of anything."""
        for owner in (OWNER, OTHER_NODE, OTHER_CLUSTER):
            assert list(await self.driver.list_owned(owner)) == []
        assert self.nothing_left()


class ProviderContract:
    """What every driver does. The subclass gives a fixture `cloud`."""

    async def test_an_instance_has_what_was_asked_for(self, cloud: Cloud) -> None:
        request = cloud.request()
        async with cloud.instance(request) as made:
            assert made.id
            assert made.name == request.name
            assert made.addresses, "addresses is never empty"
            assert all(not (one.is_unspecified or one.is_loopback) for one in made.addresses)
            assert len(set(made.addresses)) == len(made.addresses)

    async def test_create_twice_is_once(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            assert await cloud.driver.create(cloud.request()) == made
            assert [one.id for one in await cloud.driver.list_owned(OWNER)] == [made.id]

    async def test_two_creates_of_one_name_at_once_are_one(self, cloud: Cloud) -> None:
        first, second = await asyncio.gather(*(cloud.driver.create(cloud.request()) for _ in range(2)))
        async with cloud.instance() as made:
            assert first == second == made

    async def test_create_after_a_restart_finds_the_instance(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            await cloud.driver.close()
            again = cloud.restarted()
            assert await again.create(cloud.request()) == made
            assert [one.id for one in await again.list_owned(OWNER)] == [made.id]
            await again.close()

    async def test_different_names_are_different_instances(self, cloud: Cloud) -> None:
        other = cloud.request("podvm-web-9f8e7d6c")
        second = await cloud.driver.create(other)
        async with cloud.instance() as first:
            assert first.id != second.id
            assert not set(first.addresses) & set(second.addresses)
            await cloud.driver.delete(second.id)
            assert [one.id for one in await cloud.driver.list_owned(OWNER)] == [first.id]

    async def test_delete_twice_is_success(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            await cloud.driver.delete(made.id)
            await cloud.driver.delete(made.id)

    async def test_two_deletes_at_once_are_success(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            await asyncio.gather(cloud.driver.delete(made.id), cloud.driver.delete(made.id))

    @pytest.mark.parametrize("instance", ["", "x", "../../etc", "a b", "ü", "i" * 300])
    async def test_delete_of_what_never_was_is_success_or_refused(self, cloud: Cloud, instance: str) -> None:
        """A text that no id of this cloud looks like may be refused, but only as an error of the driver's."""
        await cloud.driver.delete(InstanceId(cloud.absent))
        with suppress(ProviderError):
            await cloud.driver.delete(InstanceId(instance))
        await cloud.assert_empty()

    async def test_list_owned_goes_by_owner_only(self, cloud: Cloud) -> None:
        theirs = cloud.request("podvm-web-9f8e7d6c", OTHER_NODE)
        second = await cloud.driver.create(theirs)
        async with cloud.instance() as mine:
            listed = await cloud.driver.list_owned(OWNER)
            assert [(one.id, one.name, one.sandbox) for one in listed] == [
                (mine.id, mine.name, cloud.request().sandbox)
            ]
            assert [one.id for one in await cloud.driver.list_owned(OTHER_NODE)] == [second.id]
            assert list(await cloud.driver.list_owned(OTHER_CLUSTER)) == []
            await cloud.driver.delete(second.id)

    @pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.6, 0.9])
    async def test_a_cancelled_create_leaves_nothing(self, cloud: Cloud, part: float) -> None:
        """Cancelled after a part of the time that a create takes here. Its volume is free again."""
        loop = asyncio.get_running_loop()
        disks = () if cloud.disk is None else (cloud.disk(),)
        request = replace(cloud.request(), volumes=disks)
        begin = loop.time()
        async with cloud.instance(request):
            took = loop.time() - begin
        creating = asyncio.ensure_future(cloud.driver.create(request))
        await asyncio.sleep(took * part)
        creating.cancel()
        with suppress(asyncio.CancelledError):
            made = await creating
            await cloud.driver.delete(made.id)
        await cloud.assert_empty()
        assert not any(map(cloud.held, disks))

    async def test_volumes_come_with_the_instance_and_outlive_it(self, cloud: Cloud) -> None:
        if cloud.disk is None:
            assert not cloud.driver.capabilities.volumes, "a driver that attaches volumes gives the contract a `disk`"
            return
        assert cloud.driver.capabilities.volumes
        disks = (cloud.disk(), cloud.disk())
        async with cloud.instance(replace(cloud.request(), volumes=disks)):
            assert [cloud.held(one) for one in disks] == [True, True]
        assert [cloud.held(one) for one in disks] == [False, False]
        async with cloud.instance(replace(cloud.request("podvm-db-9f8e7d6c"), volumes=disks[1:])):
            assert [cloud.held(one) for one in disks] == [False, True], "the next pod gets it"

    async def test_a_name_that_the_cloud_refuses_leaves_nothing(self, cloud: Cloud) -> None:
        for name in ("", "no spaces", "a/b", "x" * (cloud.driver.capabilities.name_limit + 1)):
            await self._assert_refused(cloud.driver.create(replace(cloud.request(), name=name)))
            await cloud.assert_empty()

    async def test_a_running_one_is_told_from_one_that_is_gone(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            runs = InstanceState.RUNNING if cloud.tells_state else InstanceState.UNKNOWN
            assert await cloud.driver.state(made.id) is runs
        if cloud.tells_state:
            assert await cloud.driver.state(made.id) in GONE
            assert await cloud.driver.state(InstanceId(cloud.absent)) is InstanceState.ABSENT

    async def test_one_that_was_halted_is_told_and_deleted(self, cloud: Cloud) -> None:
        """Dead or not, it is listed while it costs money."""
        async with cloud.instance() as made:
            await cloud.halted(made)
            state = await cloud.driver.state(made.id)
            assert state in (GONE if cloud.tells_state else {InstanceState.UNKNOWN})
            if state is not InstanceState.ABSENT:
                assert [one.id for one in await cloud.driver.list_owned(OWNER)] == [made.id]

    @pytest.mark.parametrize("instance", ["", "x", "../../etc", "a b", "ü", "i" * 300])
    async def test_the_state_of_what_never_was_is_absent_or_refused(self, cloud: Cloud, instance: str) -> None:
        with suppress(ProviderError):
            assert await cloud.driver.state(InstanceId(instance)) in {InstanceState.ABSENT, InstanceState.UNKNOWN}
        await cloud.assert_empty()

    async def test_the_console_is_there_or_not_supported(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            if cloud.driver.capabilities.console:
                assert isinstance(await cloud.driver.console(made.id), bytes)
            else:
                with pytest.raises(NotSupported):
                    await cloud.driver.console(made.id)

    async def test_check_finds_nothing_wrong_and_makes_nothing(self, cloud: Cloud) -> None:
        findings = await cloud.driver.check()
        assert [one for one in findings if one.severity is Severity.ERROR] == []
        assert all(one.subject and one.detail for one in findings)
        assert all(one.remedy for one in findings if one.severity is not Severity.OK)
        await cloud.assert_empty()

    async def test_types_fit_the_capabilities(self, cloud: Cloud) -> None:
        types = await cloud.driver.instance_types()
        assert types or not cloud.driver.capabilities.sized_by_type
        assert all(one.name and one.vcpus > 0 and one.memory_mib > 0 and one.gpus >= 0 for one in types)
        assert len({one.name for one in types}) == len(types)

    async def test_close_leaves_instances_alone(self, cloud: Cloud) -> None:
        async with cloud.instance() as made:
            await cloud.driver.close()
            again = cloud.restarted()
            assert [one.id for one in await again.list_owned(OWNER)] == [made.id]
            await again.close()

    async def _assert_refused(self, creating: Awaitable[Instance]) -> None:
        with pytest.raises(ProviderError) as caught:
            await creating
        assert str(caught.value)
        assert not caught.value.retryable
