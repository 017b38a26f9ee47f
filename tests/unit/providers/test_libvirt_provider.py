"""The driver's waits and second tries, over a host that does what the test says; time is pretended."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from caa.errors import (
    CapacityError,
    CredentialsError,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
)
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Arch, Severity, Tee
from caa.provider.contract import InstanceState, LaunchRequest, Owner
from caa.provider.threads import Threads
from caa.testing.clock import FakeClock
from providers.libvirt.facts import Facts, PoolFacts, VolumeFacts
from providers.libvirt.faults import Busy, ConnectionLost, KvmUnusable
from providers.libvirt.provider import LibvirtProvider
from providers.libvirt.sight import Found, Look
from providers.libvirt.translate import Record, Site

OWNER = Owner(cluster="c", node="n")
REQUEST = LaunchRequest(
    name="podvm-web-0a1b2c3d", sandbox=SandboxId("s"), owner=OWNER, token="t", user_data=b"#cloud-config\n"
)
SITE = Site(pool="default", network="default", volume="base.qcow2", memory_mib=512)
THERE = Look(active=True, addresses=(ip_address("192.0.2.7"),))
SILENT = Look(active=True, tried="DHCP leases: none; guest agent: not connected; ARP table: none")


class Connection:
    watcher: Callable[[str], None]

    def close(self) -> None:
        pass


class Host:
    """`providers.libvirt.client.Host` in memory. `looks` are what it sees of a domain, one after the other; the last
    one stays. `errors` are raised by the act of that name, one a call."""

    def __init__(self) -> None:
        self.connection: Any = Connection()
        self.domain: Record | None = None
        self.foreign: Record | None = None
        self.looks: list[Look] = [THERE]
        self.errors: dict[str, list[Exception]] = {}
        self.acts: list[str] = []
        self.known = Facts(arch="x86_64", kind="kvm", memory_mib=4096, max_vcpus=8, launch=frozenset({"sev-snp"}))
        self.free: int | None = 4096
        self.state_: tuple[int, int] | None = (1, 1)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Acts that leave no trace here."""

        def act(*_arguments: object, **_words: object) -> None:
            self._happen(name)

        return act

    def facts(self) -> Facts:
        self._happen("facts")
        return self.known

    def pool(self, name: str) -> PoolFacts:
        return PoolFacts(kind="dir", path="/pool", available=1 << 40)

    def network(self, name: str) -> bool | None:
        return True

    def image(self, pool: str, name: str, *, boots: bool, setting: str) -> VolumeFacts:
        return VolumeFacts(path=f"/pool/{name}", format="qcow2", capacity=1)

    def free_memory(self) -> int | None:
        return self.free

    def without_kvm(self) -> bool:
        self.known = replace(self.known, kind="qemu")
        return True

    def find(self, name: str) -> Found | None:
        self._happen("find")
        if self.foreign is not None:
            return Found(name=name, uuid="u", active=True, record=self.foreign)
        return self.get("")

    def get(self, uuid: str) -> Found | None:
        if self.domain is None:
            return None
        return Found(name=self.domain.name, uuid=self.domain.uuid, active=True, record=self.domain)

    def records(self) -> Sequence[Record]:
        return [self.domain] if self.domain else []

    def define(self, document: str) -> None:
        self._happen("define")
        self.acts[-1] += " kvm" if 'type="kvm"' in document else " qemu"
        uuid = document.partition("<uuid>")[2].partition("<")[0]
        self.domain = Record(
            name=REQUEST.name,
            uuid=uuid,
            sandbox=REQUEST.sandbox,
            owner=OWNER,
            pool="default",
            size="2x512",
            created_at=0,
        )

    def look(self, uuid: str) -> Look:
        self._happen("look")
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def note(self, record: Record) -> None:
        self._happen("note")
        self.domain = record

    def state(self, uuid: str) -> tuple[int, int] | None:
        return self.state_

    def console(self, pool: str, name: str) -> bytes:
        self._happen("console")
        return b"Kernel panic\n"

    def remove(self, uuid: str) -> None:
        self._happen("remove")
        self.domain = None

    def _happen(self, name: str) -> None:
        self.acts.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def driver(host: Host, clock: FakeClock) -> Iterator[LibvirtProvider]:
    made: Any = host
    threads = Threads(2, "t")
    yield LibvirtProvider(made, SITE, threads=threads, clock=clock, address_timeout=60.0)
    threads.close()


async def test_the_order_of_a_create(driver: LibvirtProvider, host: Host) -> None:
    """Defined before there is any volume, so that whatever a crash leaves has its owner's name on it."""
    made = await driver.create(REQUEST)
    assert [str(one) for one in made.addresses] == ["192.0.2.7"]
    changes = [one for one in host.acts if one not in ("find", "facts", "look", "refuse_existing")]
    assert changes == [
        "define kvm", "make_volume", "make_volume", "make_volume", "upload", "start", "remove_volume", "note",
    ]  # fmt: skip
    await driver.delete(made.id)
    assert host.domain is None


async def test_defect_an_endless_wait(driver: LibvirtProvider, host: Host, clock: FakeClock) -> None:
    """The reference waits 3, 6, 12 seconds and so on for 20 tries, a month in all (providers.md 1.6)."""
    host.looks = [SILENT]
    begin = clock.now()
    with pytest.raises(ProviderError, match=r"no address after 60 s .*guest agent: not connected") as caught:
        await driver.create(REQUEST)
    assert 60 <= clock.now() - begin < 62
    assert str(caught.value).endswith("its console ends with:\nKernel panic")
    assert host.domain is None


async def test_an_address_that_comes_late(driver: LibvirtProvider, host: Host) -> None:
    host.looks = [SILENT] * 20 + [THERE]
    assert (await driver.create(REQUEST)).addresses


async def test_a_console_that_cannot_be_read(driver: LibvirtProvider, host: Host) -> None:
    host.looks = [Look(active=False)]
    host.errors["console"] = [ProviderError("no such file")]
    with pytest.raises(ProviderError, match="ended as it booted; its console cannot be read: no such file"):
        await driver.create(REQUEST)


async def test_a_pool_that_is_full_while_a_guest_boots(driver: LibvirtProvider, host: Host) -> None:
    """QEMU then pauses the guest, and says nothing."""
    host.looks = [replace(SILENT, no_room=True)]
    with pytest.raises(CapacityError, match="pool default is full"):
        await driver.create(REQUEST)
    assert host.domain is None


async def test_an_event_ends_a_pause(driver: LibvirtProvider, host: Host) -> None:
    """libvirt's thread tells of a change; with a clock that stands still only that can wake the wait."""

    class Still(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    driver._clock = Still()
    host.looks = [SILENT, THERE]
    creating = asyncio.ensure_future(driver.create(REQUEST))
    for _ in range(10_000):
        await asyncio.sleep(0)
        if host.domain is not None:
            await asyncio.to_thread(host.connection.watcher, host.domain.uuid)
        if creating.done():
            break
    assert (await creating).addresses
    host.connection.watcher("somebody-else")
    assert driver._waiting == {}


@pytest.mark.parametrize("error", [ConnectionLost("gone"), Busy("pool has asynchronous jobs running")])
@pytest.mark.parametrize("act", ["find", "define", "make_volume", "upload", "start", "remove_volume", "look", "note"])
async def test_libvirtd_that_comes_back(driver: LibvirtProvider, host: Host, act: str, error: Exception) -> None:
    host.errors[act] = [error] * 3
    assert (await driver.create(REQUEST)).addresses


async def test_libvirtd_that_stays_away(driver: LibvirtProvider, host: Host, clock: FakeClock) -> None:
    host.errors["find"] = [ConnectionLost("gone")] * 1000
    begin = clock.now()
    with pytest.raises(ProviderUnavailable, match="gone"):
        await driver.create(REQUEST)
    assert 30 <= clock.now() - begin < 32


async def test_kvm_that_does_not_work(driver: LibvirtProvider, host: Host) -> None:
    host.errors["start"] = [KvmUnusable("failed to initialize kvm")]
    await driver.create(REQUEST)
    assert [one for one in host.acts if one.startswith(("define", "remove"))] == [
        "define kvm",
        "remove",
        "define qemu",
        "remove_volume",
    ]


async def test_kvm_that_a_confidential_vm_needs(driver: LibvirtProvider, host: Host) -> None:
    driver._site = replace(SITE, launch="sev-snp")
    host.errors["start"] = [KvmUnusable("failed to initialize kvm")]
    with pytest.raises(KvmUnusable):
        await driver.create(REQUEST)
    assert host.domain is None


@pytest.mark.parametrize(
    "theirs",
    [
        {"owner": Owner(cluster="c", node="other")},
        {"owner": Owner(cluster="other", node="n")},
        {"sandbox": SandboxId("other")},
    ],
)
async def test_defect_an_existing_name_is_success(driver: LibvirtProvider, host: Host, theirs: dict[str, Any]) -> None:
    """The reference answers with an empty id. Ours is taken over only from the same owner and sandbox."""
    ours = Record(name=REQUEST.name, uuid="u", sandbox=REQUEST.sandbox, owner=OWNER, pool="p", size="", created_at=0)
    host.foreign = replace(ours, **theirs)
    with pytest.raises(InvalidRequest, match="belongs to node"):
        await driver.create(REQUEST)
    assert host.acts == ["find"]


async def test_memory_that_is_not_free(driver: LibvirtProvider, host: Host) -> None:
    host.free = 100
    with pytest.raises(CapacityError, match=r"512 MiB asked for, 100 MiB free.*LIBVIRT_MEMORY_OVERCOMMIT"):
        await driver.create(REQUEST)
    driver._site = replace(SITE, overcommit=True)
    assert (await driver.create(REQUEST)).addresses


async def test_an_undoing_that_fails_leaves_the_first_error(driver: LibvirtProvider, host: Host) -> None:
    host.looks = [Look(active=False)]
    host.errors["remove"] = [CredentialsError("no more")]
    with pytest.raises(ProviderError, match="ended as it booted"):
        await driver.create(REQUEST)
    assert [one.name for one in await driver.list_owned(OWNER)] == [REQUEST.name], "the sweep finds it"


async def test_the_largest_type(driver: LibvirtProvider) -> None:
    (largest,) = await driver.instance_types()
    assert (largest.name, largest.arch, largest.tees) == ("8x4096", Arch.AMD64, {Tee.SNP})


async def test_ids_of_others(driver: LibvirtProvider, host: Host) -> None:
    for text in ("", "podvm-web", "../x"):
        await driver.delete(InstanceId(text))
        assert await driver.console(InstanceId(text)) == b""
        assert await driver.state(InstanceId(text)) is InstanceState.ABSENT
    assert host.acts == []


async def test_check_without_a_connection(driver: LibvirtProvider, host: Host) -> None:
    host.errors["facts"] = [Misconfigured("LIBVIRT_ACCELERATION is kvm")]
    (finding,) = await driver.check()
    assert (finding.severity, finding.subject) == (Severity.ERROR, "LIBVIRT_URI")


async def test_check_when_libvirtd_is_away(driver: LibvirtProvider, host: Host, clock: FakeClock) -> None:
    host.errors["facts"] = [ConnectionLost("refused")] * 1000
    begin = clock.now()
    (finding,) = await driver.check()
    assert "refused" in finding.detail
    assert clock.now() == begin, "a check does not wait"
