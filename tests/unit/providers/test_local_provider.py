"""The driver over machines in memory: once is once, errors are the driver's, a cancelled create undoes itself."""

import asyncio
import errno
import threading
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from caa.errors import CapacityError, CredentialsError, NetworkError, ProviderError, ProviderUnavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Severity
from caa.provider.contract import InstanceState, LaunchRequest, Owner
from providers.local.provider import LocalProvider
from providers.local.translate import Record

OWNER = Owner(cluster="c", node="n")


class Machines:
    """Machines that are dictionary entries. `error` is raised by a launch, after it has made its record."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.dead: set[str] = set()
        self.launches = 0
        self.error: BaseException | None = None
        self.entered = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    def find(self, name: str) -> Record | None:
        return self.records.get(name)

    def all(self) -> Sequence[Record]:
        return list(self.records.values())

    def alive(self, name: str) -> bool:
        return name in self.records and name not in self.dead

    def runs(self, name: str) -> bool:
        return self.alive(name)

    def launch(self, record: Record, user_data: bytes) -> Record:
        assert record.name not in self.records
        self.launches += 1
        self.records[record.name] = record
        self.entered.set()
        self.hold.wait(10)
        if self.error:
            raise self.error
        self.records[record.name] = replace(record, address=IPv4Address("10.199.0.1") + self.launches)
        return self.records[record.name]

    def remove(self, name: str) -> None:
        self.records.pop(name, None)
        self.dead.discard(name)

    def console(self, name: str) -> bytes:
        return b"boot" if name in self.records else b""


def request(name: str = "podvm-a-1", owner: Owner = OWNER) -> LaunchRequest:
    return LaunchRequest(name=name, sandbox=SandboxId("s"), owner=owner, token="t", user_data=b"#cloud-config\n")


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def driver(machines: Machines) -> LocalProvider:
    return LocalProvider(machines, problems=lambda: iter([("rights", "no", "be root")]), clock=lambda: 7.0)


async def test_the_same_name_is_the_same_instance(driver: LocalProvider, machines: Machines) -> None:
    first = await driver.create(request())
    assert await driver.create(request()) == first
    assert first.created_at == 7.0
    assert machines.launches == 1
    assert await driver.console(first.id) == b"boot"


async def test_two_creates_at_once_launch_once(driver: LocalProvider, machines: Machines) -> None:
    first, second = await asyncio.gather(driver.create(request()), driver.create(request()))
    assert first == second
    assert machines.launches == 1


async def test_a_dead_one_is_made_anew(driver: LocalProvider, machines: Machines) -> None:
    first = await driver.create(request())
    machines.dead.add("podvm-a-1")
    second = await driver.create(request())
    assert second.addresses != first.addresses
    assert machines.launches == 2


async def test_a_dead_one_is_told_from_one_that_is_gone(driver: LocalProvider, machines: Machines) -> None:
    made = await driver.create(request())
    assert await driver.state(made.id) is InstanceState.RUNNING
    machines.dead.add("podvm-a-1")
    assert await driver.state(made.id) is InstanceState.STOPPED
    assert [one.id for one in await driver.list_owned(OWNER)] == [made.id]
    await driver.delete(made.id)
    assert await driver.state(made.id) is InstanceState.ABSENT
    assert await driver.state(InstanceId("../x")) is InstanceState.ABSENT


async def test_a_half_made_one_is_made_anew(driver: LocalProvider, machines: Machines) -> None:
    machines.records["podvm-a-1"] = Record(name="podvm-a-1", sandbox=SandboxId("s"), owner=OWNER, created_at=1.0)
    assert [one.addresses for one in await driver.list_owned(OWNER)] == [()]
    assert (await driver.create(request())).addresses


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CapacityError),
        (OSError(errno.EPERM, "Operation not permitted"), CredentialsError),
        (OSError(errno.EIO, "Input/output error"), ProviderError),
        (NetworkError("the kernel refused"), ProviderError),
        (ProviderUnavailable("slow"), ProviderUnavailable),
    ],
)
async def test_a_failed_launch_leaves_nothing(
    driver: LocalProvider, machines: Machines, error: Exception, kind: type[Exception]
) -> None:
    machines.error = error
    with pytest.raises(kind) as caught:
        await driver.create(request())
    assert type(caught.value) is kind
    assert machines.records == {}


async def test_a_cancelled_create_waits_and_undoes(driver: LocalProvider, machines: Machines) -> None:
    machines.hold.clear()
    creating = asyncio.ensure_future(driver.create(request()))
    await asyncio.to_thread(machines.entered.wait, 10)
    creating.cancel()
    await asyncio.sleep(0)
    creating.cancel()  # again, while it waits for its thread
    await asyncio.sleep(0)
    assert not creating.done()
    machines.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert machines.records == {}


async def test_a_cancelled_create_of_a_living_one_lets_it_live(driver: LocalProvider, machines: Machines) -> None:
    made = await driver.create(request())
    creating = asyncio.ensure_future(driver.create(request()))
    await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert [one.id for one in await driver.list_owned(OWNER)] == [made.id]


async def test_delete_and_list(driver: LocalProvider) -> None:
    other = Owner(cluster="c", node="other")
    first = await driver.create(request())
    await driver.create(request("podvm-b-2", other))
    assert [one.id for one in await driver.list_owned(OWNER)] == [first.id]
    await driver.delete(first.id)
    await driver.delete(first.id)
    assert await driver.list_owned(OWNER) == []
    assert len(await driver.list_owned(other)) == 1


async def test_ids_that_are_not_ours_are_nothing(driver: LocalProvider, machines: Machines) -> None:
    machines.records["../x"] = Record(name="../x", sandbox=SandboxId("s"), owner=OWNER, created_at=1.0)
    await driver.delete(InstanceId("../x"))
    assert await driver.console(InstanceId("../x")) == b""
    assert "../x" in machines.records


async def test_check_warns_about_isolation_first(driver: LocalProvider) -> None:
    first, second = await driver.check()
    assert first.severity is Severity.WARNING
    assert "can read and change everything" in first.detail
    assert (second.severity, second.remedy) == (Severity.ERROR, "be root")
    assert await driver.instance_types() == ()
    await driver.close()
