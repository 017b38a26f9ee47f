"""A fault at every single call of libvirt: a create makes all or nothing, a delete that failed can be repeated.

On libvirt's own test driver, where a create takes milliseconds, and on a real libvirtd, whose guests are given an
address at once so that a create takes half a second.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest

import providers.libvirt
from caa.config.load import load
from caa.errors import CapacityError, ProviderError
from caa.model.ids import InstanceId
from caa.provider.clock import RealClock
from caa.provider.contract import LaunchRequest
from caa.testing.libvirt_calls import Calls, Fault, content_stubs
from caa.testing.libvirtd import Libvirtd
from providers.libvirt.connection import Connection
from providers.libvirt.provider import LibvirtProvider

NAME = "podvm-web-0a1b2c3d"
IMAGE = (
    "<volume><name>podvm-base.qcow2</name><capacity>{size}</capacity><target><format type='qcow2'/></target></volume>"
)
ALL = [Fault.REFUSED, Fault.LOST, Fault.CUT, Fault.LOST_AND_CUT]
LEASED = {"virDomain.interfaceAddresses": lambda *_: {"vnet0": {"addrs": [{"addr": "192.168.150.7"}], "hwaddr": ""}}}
CHANGING_A_CREATE = {
    "virConnect.defineXMLFlags",
    "virStoragePool.createXML",
    "virStream.finish",
    "virDomain.create",
    "virStorageVol.delete",
    "virDomain.setMetadata",
}
CHANGING_A_DELETE = {"virDomain.destroy", "virStorageVol.delete", "virStoragePool.createXML", "virDomain.undefineFlags"}
# Calls that are asked when something failed already, or that may fail without harm.
UNHARMED = {"virConnect.getMemoryStats", "virDomain.interfaceAddresses"}


class Hasty(RealClock):
    """Pauses take a fiftieth."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 50)


class Field:
    """A driver over a host whose leftovers can be counted."""

    def __init__(self, driver: LibvirtProvider, calls: Calls, left: Callable[[], list[str]]) -> None:
        self.driver = driver
        self.calls = calls
        self.left = left


@pytest.fixture
def anchor() -> Iterator[Any]:
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@pytest.fixture
async def pretended(anchor: Any) -> AsyncIterator[Field]:
    calls = Calls({**content_stubs(), **LEASED})
    environ = {"LIBVIRT_POOL": "default-pool", "LIBVIRT_VOL_NAME": "podvm-base.qcow2", "LIBVIRT_MEMORY": "64"}
    pool = anchor.storagePoolLookupByName("default-pool")
    with suppress(libvirt.libvirtError):
        pool.createXML(IMAGE.format(size=1024), 0)
    driver = providers.libvirt.provider(
        load(providers.libvirt.SETTINGS, environ), Connection("test:///default", opener=calls.open), clock=Hasty()
    )

    def left() -> list[str]:
        domains = [one.name() for one in anchor.listAllDomains() if one.name() != "test"]
        return domains + [one for one in pool.listVolumes() if one != "podvm-base.qcow2"]

    yield Field(driver, calls, left)
    await driver.close()


@pytest.fixture
async def real(daemon: Libvirtd, connection: Any, driver: Any, base_image: str) -> Field:
    calls = Calls(LEASED)
    made = driver(calls, clock=Hasty(), LIBVIRT_VOL_NAME=base_image)

    def left() -> list[str]:
        files = [one.name for one in daemon.pool.iterdir() if one.name != base_image]
        return [one.name() for one in connection.listAllDomains()] + files

    return Field(made, calls, left)


@pytest.fixture
def base_image(daemon: Libvirtd, connection: Any) -> Iterator[str]:
    """An image with nothing in it; the small guest boots from its kernel."""
    pool = connection.storagePoolLookupByName("default")
    volume = pool.createXML(IMAGE.format(size=1 << 20), 0)
    yield "podvm-base.qcow2"
    volume.delete(0)


async def names_of_a_create(field: Field, request: LaunchRequest) -> list[str]:
    """The calls of a create that goes well, with the connection open already, and its delete."""
    await field.driver.check()
    begin = len(field.calls.names)
    made = await field.driver.create(request)
    names = field.calls.names[begin:]
    await field.driver.delete(made.id)
    assert field.left() == []
    return names


async def assert_create(field: Field, request: LaunchRequest, number: int, *, fault: Fault) -> str:
    """One create with one fault: it fails and leaves nothing, or goes well all the same."""
    fired = field.calls.fired
    field.calls.plan(number, fault)
    try:
        made = await field.driver.create(request)
    except ProviderError as error:
        assert field.left() == [], f"{fault} at call {number} left something: {error}"  # noqa: PT017
        return "failed"
    finally:
        assert field.calls.fired == fired + 1, "the fault came to pass"
    assert [one.id for one in await field.driver.list_owned(request.owner)] == [made.id]
    await field.driver.delete(made.id)
    assert field.left() == []
    return "made"


async def faults_of_a_create(field: Field, request: LaunchRequest) -> dict[tuple[str, str], set[str]]:
    names = await names_of_a_create(field, request)
    outcomes: dict[tuple[str, str], set[str]] = {}
    for number, name in enumerate(names):
        for fault in ALL:
            result = await assert_create(field, request, number, fault=fault)
            outcomes.setdefault((name, fault), set()).add(result)
            await field.driver.check()  # the connection is open again, so that numbers stay true
    return outcomes


async def assert_delete(field: Field, request: LaunchRequest, number: int, *, fault: Fault) -> None:
    """One delete with one fault: what it left is still listed, and a second delete removes it."""
    made = await field.driver.create(request)
    field.calls.plan(number, fault)
    try:
        await field.driver.delete(made.id)
    except ProviderError:
        if field.left():
            assert [one.id for one in await field.driver.list_owned(request.owner)] == [made.id]
        await field.driver.delete(made.id)
    assert field.left() == []
    await field.driver.check()


async def names_of_a_delete(field: Field, request: LaunchRequest) -> list[str]:
    made = await field.driver.create(request)
    begin = len(field.calls.names)
    await field.driver.delete(made.id)
    return field.calls.names[begin:]


class TestPretended:
    """All faults at all calls, one after the other."""

    async def test_user_data_that_the_pool_keeps_half_of(self, pretended: Field, request_of: Any) -> None:
        """libvirt 9.0 says now and then that all is well when the last 256 KiB found no room."""
        pretended.calls.stubs["virStream.recvAll"] = lambda write, opaque: write(None, b"half", opaque)
        with pytest.raises(CapacityError, match="did not keep"):
            await pretended.driver.create(request_of(NAME))
        assert "virDomain.create" not in pretended.calls.names
        assert pretended.left() == []

    async def test_create(self, pretended: Field, request_of: Any) -> None:
        outcomes = await faults_of_a_create(pretended, request_of(NAME))
        assert len({name for name, _ in outcomes}) > 15
        for (name, fault), results in outcomes.items():
            if fault in (Fault.CUT, Fault.LOST_AND_CUT):
                assert results == {"made"}, f"a connection lost in {name} is made good"
            elif name not in UNHARMED and fault is Fault.REFUSED:
                assert "failed" in results, f"an error of {name} is told"

    async def test_the_pool_is_never_refreshed(self, pretended: Field, request_of: Any) -> None:
        """A refresh collides with whoever works on the pool (providers.md 5.2: 57 errors among 60 of them)."""
        request = request_of(NAME)
        names = await names_of_a_create(pretended, request) + await names_of_a_delete(pretended, request)
        assert "virStoragePool.createXML" in names
        assert "virStoragePool.refresh" not in names

    async def test_create_with_a_second_fault_in_its_undoing(self, pretended: Field, request_of: Any) -> None:
        """What could not be undone carries its owner's name, so the sweep finds it."""
        request = request_of(NAME)
        names = await names_of_a_create(pretended, request)
        start = names.index("virDomain.create")
        for later in range(1, 20):
            pretended.calls.plan(start, Fault.LOST)
            pretended.calls.plan(start + 1, Fault.REFUSED)  # asked whether it runs: no answer, so it failed
            pretended.calls.plan(start + 1 + later, Fault.REFUSED)
            with pytest.raises(ProviderError):
                await pretended.driver.create(request)
            for one in await pretended.driver.list_owned(request.owner):
                await pretended.driver.delete(one.id)
            assert pretended.left() == [], f"fault {later} calls into the undoing"

    async def test_delete(self, pretended: Field, request_of: Any) -> None:
        names = await names_of_a_delete(pretended, request_of(NAME))
        assert len(names) > 10
        for number in range(len(names)):
            for fault in ALL:
                await assert_delete(pretended, request_of(NAME), number, fault=fault)

    async def test_cancelled_at_every_call(self, pretended: Field, request_of: Any) -> None:
        """A create that is cancelled while libvirt works ends its call, and undoes it."""
        request = request_of(NAME)
        names = await names_of_a_create(pretended, request)
        for number in range(len(names)):
            creating = asyncio.ensure_future(pretended.driver.create(request))
            loop = asyncio.get_running_loop()
            pretended.calls.watch(number, lambda: loop.call_soon_threadsafe(creating.cancel))  # noqa: B023
            with suppress(asyncio.CancelledError):
                made = await creating
                await pretended.driver.delete(made.id)
            assert pretended.left() == [], f"cancelled at {names[number]}"

    async def test_adopting_with_a_fault(self, pretended: Field, request_of: Any) -> None:
        """A node that restarted asks for the pod VM again: what then fails leaves all or nothing."""
        request = request_of(NAME)
        made = await pretended.driver.create(request)
        begin = len(pretended.calls.names)
        assert await pretended.driver.create(request) == made
        for number in range(len(pretended.calls.names) - begin):
            for fault in ALL:
                pretended.calls.plan(number, fault)
                with suppress(ProviderError):
                    await pretended.driver.create(request)
                left = [one.id for one in await pretended.driver.list_owned(request.owner)]
                assert len(left) <= 1
                made = await pretended.driver.create(request)
        await pretended.driver.delete(made.id)
        assert pretended.left() == []


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs("libvirtd", "qemu-system-x86_64", "qemu-img")
class TestReal:
    """The same on files and processes, for the calls that change something; half a second a create."""

    async def test_create(self, real: Field, request_of: Any) -> None:
        request = request_of(NAME)
        names = await names_of_a_create(real, request)
        assert set(names) > CHANGING_A_CREATE
        for number, name in enumerate(names):
            for fault in (Fault.LOST, Fault.LOST_AND_CUT) if name in CHANGING_A_CREATE else ():
                await assert_create(real, request, number, fault=fault)
                await real.driver.check()

    async def test_delete(self, real: Field, request_of: Any) -> None:
        names = await names_of_a_delete(real, request_of(NAME))
        assert set(names) > CHANGING_A_DELETE
        for number, name in enumerate(names):
            if name in CHANGING_A_DELETE:
                await assert_delete(real, request_of(NAME), number, fault=Fault.LOST)


async def test_a_domain_of_somebody_else_stays(pretended: Field, anchor: Any, request_of: Any, tmp_path: Path) -> None:
    """Neither taken over nor removed: it has not our metadata (providers.md 5.2: the reference returns success)."""
    theirs = anchor.defineXML(
        f"<domain type='test'><name>{NAME}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    )
    with pytest.raises(ProviderError, match="nobody that we know"):
        await pretended.driver.create(request_of(NAME))
    with pytest.raises(ProviderError, match="was not made by this adaptor"):
        await pretended.driver.delete(InstanceId(theirs.UUIDString()))
    assert [one.name() for one in anchor.listAllDomains() if one.name() != "test"] == [NAME]
    theirs.undefine()


async def test_a_volume_of_somebody_else_stays(pretended: Field, anchor: Any, request_of: Any) -> None:
    pool = anchor.storagePoolLookupByName("default-pool")
    volume = pool.createXML(f"<volume><name>{NAME}-root.qcow2</name><capacity>7</capacity></volume>", 0)
    with pytest.raises(ProviderError, match="belongs to no pod VM of ours"):
        await pretended.driver.create(request_of(NAME))
    assert pretended.left() == [f"{NAME}-root.qcow2"]
    volume.delete(0)
