"""VMs that cannot come up: what the shim is told, how soon, and that nothing of them stays."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from caa.errors import Code
from caa.testing.shim import requests
from caa.testing.shim.hypervisor_link import HypervisorLink
from caa.testing.shim.kinds import Kind, habits
from caa.testing.shim.link import Stopwatch
from caa.wire.status import RpcError

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(100),
    pytest.mark.needs("runc", "nft", "ip", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq"),
]
POOL = "<pool type='dir'><name>small</name><target><path>{path}</path></target></pool>"
IMAGE = "<volume><name>base.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/></target></volume>"
NO_DISK = "this is no disk and no kernel\n" * 1000


async def refused(worker: Any, kind: Kind = Kind.GO) -> RpcError:
    """What the shim is told of a start that fails."""
    with pytest.raises(RpcError) as caught:
        await worker.start(kind)
    return caught.value


async def refused_in_time(worker: Any, kind: Kind, *, seconds: float) -> str:
    """What StartVM with a deadline answers; it comes before the deadline."""
    own = replace(habits(kind), start_timeout=seconds)
    link = HypervisorLink(str(worker.paths.hypervisor), own, watch=Stopwatch())
    await link.create(requests.create_vm(await worker.options(), "ab" * 32, habits=own))
    began = time.monotonic()
    with pytest.raises(RpcError) as caught:
        await link.start("ab" * 32)
    assert time.monotonic() - began < seconds
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    await link.stop("ab" * 32)
    await link.close()
    return str(caught.value)


@dataclass(frozen=True)
class SmallPool:
    """A pool of its own file system, which only libvirtd sees."""

    pool: Any
    daemon: Any
    folder: str

    def grow(self, size: str) -> None:
        self.daemon.inside("mount", "-o", f"remount,size={size}", self.folder)

    def add_image(self) -> None:
        self.pool.createXML(IMAGE, 0)


@pytest.fixture
def small_pool(host: Any) -> Iterator[SmallPool]:
    """Without room for the user data."""
    folder = host.daemon.base / "small"
    folder.mkdir()
    host.daemon.inside("mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder))
    with host.connection() as connection:
        pool = connection.storagePoolCreateXML(POOL.format(path=folder), 0)
        yield SmallPool(pool, host.daemon, str(folder))
        pool.destroy()
    host.daemon.inside("umount", "--lazy", str(folder))
    folder.rmdir()


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_pool_without_room(small_pool: SmallPool, worker: Any, kind: Kind) -> None:
    await worker.restart(LIBVIRT_POOL="small")
    error = await refused(worker, kind)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "could not create the pod VM: the storage pool" in str(error)
    assert "LIBVIRT_POOL" in str(error)


async def test_a_pool_that_fills_up_while_the_vm_boots(
    small_pool: SmallPool, worker: Any, small_guest: dict[str, str]
) -> None:
    """The root disk grows as the guest writes; QEMU stops the VM then, and nobody waits for its address any more."""
    small_pool.grow("3m")
    small_pool.add_image()
    cmdline = f"{small_guest['LIBVIRT_CMDLINE']} small.fill"
    await worker.restart(
        LIBVIRT_POOL="small", LIBVIRT_VOL_NAME="base.qcow2", **{**small_guest, "LIBVIRT_CMDLINE": cmdline}
    )
    error = await refused(worker)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "could not create the pod VM: the storage pool small is full (LIBVIRT_POOL)" in str(error)


@pytest.fixture
def no_disk(host: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Files that are something else, by where they are."""
    (tmp_path / "text").write_text(NO_DISK)
    volume = host.daemon.pool / "text.qcow2"
    volume.write_text(NO_DISK)
    yield {"a file": str(tmp_path / "text"), "a volume": volume.name}
    volume.unlink()


WRONG = {
    "no volume": (
        {"LIBVIRT_KERNEL": "", "LIBVIRT_INITRD": "", "LIBVIRT_VOL_NAME": "nothing.qcow2"},
        Code.INVALID_ARGUMENT,
        ("LIBVIRT_VOL_NAME: there is no volume nothing.qcow2 in the pool default", "virsh vol-list default"),
    ),
    "no disk": (
        {"LIBVIRT_KERNEL": "", "LIBVIRT_INITRD": "", "LIBVIRT_VOL_NAME": "a volume"},
        Code.INVALID_ARGUMENT,
        ("LIBVIRT_VOL_NAME: the volume text.qcow2 in the pool default is no disk image",),
    ),
    "no kernel": (
        {"LIBVIRT_KERNEL": "a file"},
        Code.FAILED_PRECONDITION,
        ("LIBVIRT_KERNEL, LIBVIRT_INITRD: QEMU cannot load them", "too old"),
    ),
    "kernel not there": (
        {"LIBVIRT_KERNEL": "/nowhere/vmlinux"},
        Code.FAILED_PRECONDITION,
        ("LIBVIRT_KERNEL, LIBVIRT_INITRD: QEMU cannot load them", "/nowhere/vmlinux", "No such file"),
    ),
    "no initramfs": (
        {"LIBVIRT_INITRD": "a file"},
        Code.INTERNAL,
        ("ended as it booted; its console ends with:", "Initramfs unpacking failed", "Kernel panic"),
    ),
}


@pytest.mark.parametrize("wrong", list(WRONG))
async def test_a_wrong_image(worker: Any, no_disk: dict[str, str], wrong: str) -> None:
    """Told at once, with the setting and what is wrong with it."""
    settings, code, words = WRONG[wrong]
    await worker.restart(**{name: no_disk.get(value, value) for name, value in settings.items()})
    began = time.monotonic()
    error = await refused(worker)
    assert time.monotonic() - began < 15
    assert error.code is code
    for one in ("could not create the pod VM: ", *words):
        assert one in str(error)


async def test_a_vm_that_never_asks_for_an_address(worker: Any, small_guest: dict[str, str]) -> None:
    """The driver's own bound."""
    cmdline = f"{small_guest['LIBVIRT_CMDLINE']} small.silent"
    await worker.restart(**{**small_guest, "LIBVIRT_CMDLINE": cmdline}, LIBVIRT_ADDRESS_TIMEOUT="8s")
    began = time.monotonic()
    error = await refused(worker, Kind.RS)
    assert 8 <= time.monotonic() - began < 20
    assert "has no address after 8 s (LIBVIRT_ADDRESS_TIMEOUT" in str(error)
    assert "its console ends with:\nsmall guest: disk caa-seed\nsmall guest: silent" in str(error)


async def test_a_vm_that_has_no_address_when_the_shim_s_time_is_up(worker: Any, small_guest: dict[str, str]) -> None:
    await worker.restart(**{**small_guest, "LIBVIRT_CMDLINE": f"{small_guest['LIBVIRT_CMDLINE']} small.silent"})
    said = await refused_in_time(worker, Kind.GO, seconds=4)
    assert "the deadline of StartVM passed" in said


async def test_a_vm_whose_agent_does_not_come(worker: Any, tiny: dict[str, str]) -> None:
    """It has an address, and a shell in place of the pod VM's programs."""
    await worker.restart(LIBVIRT_CMDLINE=f"{tiny['LIBVIRT_CMDLINE']} podvm.shell", PROXY_TIMEOUT="4s")
    error = await refused(worker, Kind.RS)
    assert error.code is Code.DEADLINE_EXCEEDED
    assert "could not reach the agent in the pod VM: " in str(error)
    assert "Connection refused; its console ends with:\n" in str(error)
    assert "BusyBox" in str(error)
