"""A private libvirtd for all tests of this folder, and drivers over it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

import providers.libvirt
from caa.config.load import load
from caa.model.ids import SandboxId
from caa.provider.clock import Clock
from caa.provider.contract import LaunchRequest, Owner
from caa.testing.libvirt_calls import Calls
from caa.testing.libvirtd import Libvirtd
from providers.libvirt.connection import Connection
from providers.libvirt.provider import LibvirtProvider

MakeDriver = Callable[..., LibvirtProvider]


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    base = Path(tempfile.mkdtemp(prefix="caa-lv-"))
    try:
        with Libvirtd(base) as started:
            started.define_pool_and_network()
            yield started
    finally:
        shutil.rmtree(base)


@pytest.fixture
def connection(daemon: Libvirtd) -> Iterator[Any]:
    """Somebody else's eyes and hands."""
    opened = libvirt.open(daemon.uri)
    yield opened
    opened.close()


@pytest.fixture
async def driver(daemon: Libvirtd, small_guest: dict[str, str]) -> AsyncIterator[MakeDriver]:
    """Makes drivers that boot the small guest: `driver(calls, LIBVIRT_...="...")`."""
    made: list[LibvirtProvider] = []

    def make(calls: Calls | None = None, *, clock: Clock | None = None, **environ: str) -> LibvirtProvider:
        settings = {"LIBVIRT_URI": daemon.uri, "LIBVIRT_ACCELERATION": "qemu", **small_guest, **environ}
        settings = {key: value for key, value in settings.items() if value}
        connection = Connection(daemon.uri, opener=calls.open if calls else None)
        made.append(providers.libvirt.provider(load(providers.libvirt.SETTINGS, settings), connection, clock=clock))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def request_of() -> Callable[[str], LaunchRequest]:
    """A launch request by the pod VM's name."""

    def make(name: str) -> LaunchRequest:
        owner = Owner(cluster="functional", node="worker-1")
        return LaunchRequest(
            name=name, sandbox=SandboxId(f"sandbox-{name}"), owner=owner, token=name, user_data=b"#cloud-config\n"
        )

    return make


@pytest.fixture
def nothing_left(daemon: Libvirtd) -> Iterator[Callable[[], None]]:
    """Asserts that libvirtd has no domain, volume, file or QEMU; also at the end of the test."""

    def assert_nothing() -> None:
        connection = libvirt.open(daemon.uri)
        assert [one.name() for one in connection.listAllDomains()] == []
        assert connection.storagePoolLookupByName("default").listVolumes() == []
        connection.close()
        assert [one.name for one in daemon.pool.iterdir()] == []
        assert [one for one in daemon.processes() if "qemu" in one] == []
        assert list((daemon.base / "lib" / "libvirt" / "qemu" / "nvram").glob("*")) == []
        assert list((daemon.base / "lib" / "libvirt" / "swtpm").glob("*")) == []

    yield assert_nothing
    assert_nothing()
