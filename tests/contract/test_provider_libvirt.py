"""`libvirt` keeps the drivers' contract: on libvirt's own test driver, and on a real libvirtd that boots VMs."""

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

import providers.libvirt
from caa.config.load import load
from caa.provider.contract import Instance, Provider
from caa.testing.bootable import user_data
from caa.testing.libvirt_calls import Calls, content_stubs
from caa.testing.libvirtd import Libvirtd
from caa.testing.provider_contract import Cloud, ProviderContract
from caa.wire.certs import NodeAuthority
from providers.libvirt.connection import Connection

IMAGE = "<volume><name>podvm-base.qcow2</name><capacity>1024</capacity><target><format type='qcow2'/></target></volume>"
NOBODY = "9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e"


def made_disk(pool: Any) -> str:
    """A data volume."""
    name = f"pvc-{secrets.token_hex(4)}"
    text = "<volume><name>{}</name><capacity>1048576</capacity><target><format type='raw'/></target></volume>"
    pool.createXML(text.format(name), 0)
    return name


def is_held(connection: Any, disk: str) -> bool:
    """Whether a domain that is still defined has it."""
    return any(f"/{disk}'" in one.XMLDesc() for one in connection.listAllDomains())


def remove_disks(pool: Any) -> None:
    for name in pool.listVolumes():
        if name.startswith("pvc-"):
            pool.storageVolLookupByName(name).delete()


class TestTestDriver(ProviderContract):
    """`test:///default`: domains, pools and networks of a pretended host, kept while a connection is open."""

    @pytest.fixture
    def anchor(self) -> Iterator[Any]:
        connection = libvirt.open("test:///default")
        pool = connection.storagePoolLookupByName("default-pool")
        if "podvm-base.qcow2" not in pool.listVolumes():  # whoever still holds an object keeps the whole host
            pool.createXML(IMAGE, 0)
        yield connection
        connection.close()

    @pytest.fixture
    async def cloud(self, anchor: Any) -> AsyncIterator[Cloud]:
        made: list[Provider] = []

        def driver() -> Provider:
            environ = {"LIBVIRT_URI": "test:///default", "LIBVIRT_POOL": "default-pool", "LIBVIRT_MEMORY": "512"}
            settings = load(providers.libvirt.SETTINGS, environ)
            connection = Connection("test:///default", opener=Calls(content_stubs()).open)
            made.append(providers.libvirt.provider(settings, connection))
            return made[-1]

        def nothing_left() -> bool:
            assert [one.name() for one in anchor.listAllDomains()] == ["test"]
            volumes = anchor.storagePoolLookupByName("default-pool").listVolumes()
            assert [one for one in volumes if not one.startswith("pvc-")] == ["podvm-base.qcow2"]
            return True

        async def halted(instance: Instance) -> None:
            anchor.lookupByUUIDString(instance.id).destroy()

        yield Cloud(
            driver=driver(),
            restarted=driver,
            nothing_left=nothing_left,
            halted=halted,
            absent=NOBODY,
            disk=lambda: made_disk(anchor.storagePoolLookupByName("default-pool")),
            held=lambda disk: is_held(anchor, disk),
        )
        for one in made:
            await one.close()
        remove_disks(anchor.storagePoolLookupByName("default-pool"))


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    base = Path(tempfile.mkdtemp(prefix="caa-lv-"))
    try:
        with Libvirtd(base) as started:
            started.define_pool_and_network()
            yield started
    finally:
        shutil.rmtree(base)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs("libvirtd", "qemu-system-x86_64", "dnsmasq")
class TestLibvirtd(ProviderContract):
    """A private libvirtd. Its guests boot under emulation, in two to three seconds, and ask for an address."""

    @pytest.fixture
    async def cloud(self, daemon: Libvirtd, small_guest: dict[str, str], tmp_path: Path) -> AsyncIterator[Cloud]:
        made: list[Provider] = []

        def driver() -> Provider:
            environ = {"LIBVIRT_URI": daemon.uri, "LIBVIRT_ACCELERATION": "qemu", **small_guest}
            made.append(providers.libvirt.make(load(providers.libvirt.SETTINGS, environ)))
            return made[-1]

        def nothing_left() -> bool:
            assert [one for one in daemon.processes() if "qemu" in one] == []
            assert [one.name for one in daemon.pool.iterdir() if not one.name.startswith("pvc-")] == []
            return True

        async def halted(instance: Instance) -> None:
            connection = libvirt.open(daemon.uri)
            connection.lookupByUUIDString(instance.id).destroy()
            connection.close()

        eyes = libvirt.open(daemon.uri)
        boots = user_data(NodeAuthority.load_or_create(tmp_path), "podvm-web-0a1b2c3d")
        yield Cloud(
            driver=driver(),
            restarted=driver,
            nothing_left=nothing_left,
            halted=halted,
            absent=NOBODY,
            user_data=boots,
            disk=lambda: made_disk(eyes.storagePoolLookupByName("default")),
            held=lambda disk: is_held(eyes, disk),
        )
        for one in made:
            await one.close()
        remove_disks(eyes.storagePoolLookupByName("default"))
        eyes.close()
