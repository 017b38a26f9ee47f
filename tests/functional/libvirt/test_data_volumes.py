"""Data volumes on a real libvirtd: attached in order, kept, locked against a second VM, never followed elsewhere."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.errors import ProviderError, ProviderUnavailable
from caa.testing.libvirt_calls import Calls

NAME = "podvm-web-0a1b2c3d"
VOLUME_OF = "<volume><name>{name}</name><capacity>{size}</capacity><target><format type='raw'/></target></volume>"
LEASED = {"virDomain.interfaceAddresses": lambda *_: {"vnet0": {"addrs": [{"addr": "192.168.150.7"}], "hwaddr": ""}}}

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("libvirtd", "qemu-system-x86_64", "dnsmasq", "qemu-img"),
    pytest.mark.usefixtures("nothing_left"),
]


@pytest.fixture
def data_volume(connection: Any) -> Iterator[str]:
    pool = connection.storagePoolLookupByName("default")
    volume = pool.createXML(VOLUME_OF.format(name="pvc-1", size=1 << 20), 0)
    yield "pvc-1"
    volume.delete(0)


async def test_data_volumes(driver: Any, connection: Any, request_of: Any) -> None:
    """Attached at the start, in order; they outlive the pod VM."""
    pool = connection.storagePoolLookupByName("default")
    volumes = [pool.createXML(VOLUME_OF.format(name=f"pvc-{one}", size=1 << 20), 0) for one in (1, 2)]
    made = driver()
    instance = await made.create(replace(request_of(NAME), volumes=("pvc-2", "pvc-1")))
    end = time.monotonic() + 20
    while b"small guest: data" not in (console := await made.console(instance.id)):
        assert time.monotonic() < end, console
        await asyncio.sleep(0.05)
    words = [line.split()[-1] for line in console.splitlines() if b"small guest: disk" in line]
    assert words == [b"caa-seed", b"caa-data-0", b"caa-data-1"]
    sources = connection.lookupByName(NAME).XMLDesc()
    assert sources.index("pvc-2") < sources.index("pvc-1")
    await made.delete(instance.id)
    assert sorted(pool.listVolumes()) == ["pvc-1", "pvc-2"]
    for one in volumes:
        one.delete(0)


async def test_a_data_volume_that_another_vm_uses(
    driver: Any, request_of: Any, data_volume: str, connection: Any
) -> None:
    """QEMU locks it: the second pod VM fails in words, leaves nothing, and can be made when the first is gone."""
    made = driver(Calls(LEASED))
    first = await made.create(replace(request_of(NAME), volumes=(data_volume,)))
    other = replace(request_of("podvm-web-4e5f6a7b"), volumes=(data_volume,))
    with pytest.raises(ProviderUnavailable, match="another VM uses one of its volumes"):
        await made.create(other)
    assert [one.name() for one in connection.listAllDomains()] == [NAME]
    await made.delete(first.id)
    await made.delete((await made.create(other)).id)


async def test_a_data_volume_that_is_not_there(driver: Any, request_of: Any) -> None:
    with pytest.raises(ProviderError, match="data volume: there is no volume pvc-9 in the pool default"):
        await driver().create(replace(request_of(NAME), volumes=("pvc-9",)))


async def test_a_header_that_a_guest_wrote_leads_to_no_file_of_the_host(
    driver: Any, connection: Any, request_of: Any, data_volume: str, tmp_path: Path
) -> None:
    """A refresh of the pool takes the volume for a qcow2 image over a file of the host."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host" * 100)
    pool = connection.storagePoolLookupByName("default")
    disk = pool.storageVolLookupByName(data_volume).path()
    await asyncio.to_thread(
        subprocess.run, ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, disk], check=True
    )
    pool.refresh(0)
    with pytest.raises(ProviderError, match="pvc-1 holds qcow2, or a guest has written that into it"):
        await driver().create(replace(request_of(NAME), volumes=(data_volume,)))
