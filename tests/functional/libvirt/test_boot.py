"""Real VMs on a private libvirtd: what a guest gets, what happens when it, the pool or libvirtd fails meanwhile."""

import asyncio
import hashlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CapacityError, InstanceTypeError, InvalidRequest, Misconfigured, ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import Severity, Sizing
from caa.provider.contract import InstanceState
from caa.testing.libvirt_calls import Calls, Injected
from caa.testing.libvirtd import Libvirtd

NAME = "podvm-web-0a1b2c3d"
POOL_OF = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
VOLUME_OF = "<volume><name>{name}</name><capacity>{size}</capacity><target><format type='{form}'/></target></volume>"
SILENT = "console=ttyS0 panic=-1 quiet loglevel=1 nokaslr small.silent"
LEASED = {"virDomain.interfaceAddresses": lambda *_: {"vnet0": {"addrs": [{"addr": "192.168.150.7"}], "hwaddr": ""}}}

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("libvirtd", "qemu-system-x86_64", "dnsmasq", "swtpm", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    pytest.mark.usefixtures("nothing_left"),
]


async def said(driver: Any, instance: InstanceId, words: bytes) -> bytes:
    """The console once it holds `words`."""
    end = time.monotonic() + 20
    while words not in (console := await driver.console(instance)):
        assert time.monotonic() < end, console
        await asyncio.sleep(0.05)
    return bytes(console)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited in vain")


def qemu_img(*words: str) -> str:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


def host_memory() -> int:
    """MiB."""
    return int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) >> 10


def file_of(daemon: Libvirtd, name: str) -> Path:
    return daemon.pool / name


async def test_a_pod_vm(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    """Its user data is read by the guest, and by nobody else: the file is gone when `create` returns."""
    made = driver()
    data = b"#cloud-config\n" + bytes(range(256)) * 512
    instance = await made.create(replace(request_of(NAME), user_data=data))
    assert str(instance.addresses[0]).startswith("192.168.150.")
    assert sorted(one.name for one in daemon.pool.iterdir()) == [f"{NAME}-console.log"]
    assert file_of(daemon, f"{NAME}-console.log").stat().st_mode & 0o777 == 0o600
    console = await said(made, instance.id, b"small guest: data")
    assert hashlib.md5(data).hexdigest().encode() in console
    assert b"small guest: disk caa-seed" in console
    assert await made.state(instance.id) is InstanceState.RUNNING
    await made.delete(instance.id)


async def test_the_seed_is_closed_to_others_while_it_is_there(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    calls, modes = Calls(LEASED), []
    made = driver(calls)
    seed = file_of(daemon, f"{NAME}-seed.iso")
    calls.told["virStream.finish"] = lambda: modes.append(seed.stat().st_mode & 0o777)
    instance = await made.create(request_of(NAME))
    await made.delete(instance.id)
    assert modes == [0o600]


async def test_libvirtd_restarted_while_a_guest_boots_and_runs(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    """The seed's name is gone when libvirtd comes back: that must not end the VM."""
    calls = Calls()
    made = driver(calls)
    await made.check()
    creating = asyncio.ensure_future(made.create(request_of(NAME)))
    await until(lambda: "virDomain.interfaceAddresses" in calls.names)
    await asyncio.to_thread(daemon.restart)
    instance = await creating
    await asyncio.to_thread(daemon.restart)
    assert await made.state(instance.id) is InstanceState.RUNNING
    assert await made.create(request_of(NAME)) == instance
    await made.delete(instance.id)


async def test_libvirtd_restarted_at_each_step_of_a_create(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    """It is killed in the middle of a call: the create goes on with the new one, or fails and leaves nothing."""
    names = ["virConnect.defineXMLFlags", "virStoragePool.createXML", "virStream.finish", "virDomain.create"]
    for name in [*names, "virStorageVol.delete", "virDomain.setMetadata"]:
        calls = Calls(LEASED)
        made = driver(calls)
        await made.check()
        at_call(calls, name, daemon.restart)
        try:
            instance = await made.create(request_of(NAME))
        except ProviderError:
            assert await made.list_owned(request_of(NAME).owner) == [], f"restarted at {name}"
            continue
        assert await made.state(instance.id) is InstanceState.RUNNING, f"restarted at {name}"
        await made.delete(instance.id)


def at_call(calls: Calls, name: str, act: Callable[[], object]) -> None:
    """Do `act` when the call of that name begins; in a thread of its own, so that both go on at the same time."""
    calls.told[name] = lambda: threading.Thread(target=act).start()


async def test_a_guest_that_never_asks_for_an_address(driver: Any, request_of: Any, nothing_left: Any) -> None:
    """The wait is bounded; the error says what each source answered and how the console ends."""
    made = driver(LIBVIRT_CMDLINE=SILENT, LIBVIRT_ADDRESS_TIMEOUT="10s")
    begin = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        await made.create(request_of(NAME))
    assert 10 <= time.monotonic() - begin < 20
    assert "no address after 10 s" in str(caught.value)
    assert "DHCP leases: none; guest agent: " in str(caught.value)
    assert "ARP table: " in str(caught.value)
    assert "small guest: silent" in str(caught.value)
    nothing_left()


async def test_an_image_that_cannot_boot(driver: Any, request_of: Any, nothing_left: Any) -> None:
    """A kernel without a root ends at once; the create ends with it, long before its time is up."""
    made = driver(LIBVIRT_INITRD="")
    begin = time.monotonic()
    with pytest.raises(ProviderError, match=r"(?s)ended as it booted.*Kernel panic"):
        await made.create(request_of(NAME))
    assert time.monotonic() - begin < 20
    nothing_left()


async def test_a_wait_that_is_cancelled(driver: Any, request_of: Any, nothing_left: Any) -> None:
    """The reference goes on for half an hour, whatever its caller wants (providers.md 5.2)."""
    calls = Calls()
    made = driver(calls, LIBVIRT_CMDLINE=SILENT)
    creating = asyncio.ensure_future(made.create(request_of(NAME)))
    await until(lambda: "virDomain.interfaceAddresses" in calls.names)
    begin = time.monotonic()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert time.monotonic() - begin < 3
    nothing_left()


async def test_five_at_once(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    made = driver()
    requests = [request_of(f"podvm-web-{number:08x}") for number in range(5)]
    instances = await asyncio.gather(*map(made.create, requests))
    assert len({one.addresses for one in instances}) == 5
    assert len(await made.list_owned(requests[0].owner)) == 5
    await asyncio.gather(*(made.delete(one.id) for one in instances))


async def test_no_memory(driver: Any, request_of: Any, nothing_left: Any) -> None:
    """More than is free now is a matter of time, more than the host has is not."""
    total = host_memory()
    made = driver()
    with pytest.raises(CapacityError, match="not enough memory"):
        await made.create(replace(request_of(NAME), sizing=Sizing(memory_mib=total - 1)))
    with pytest.raises(InstanceTypeError, match="in all"):
        await made.create(replace(request_of(NAME), sizing=Sizing(memory_mib=total + 1024)))
    with pytest.raises(InstanceTypeError, match="vCPUs"):
        await made.create(replace(request_of(NAME), sizing=Sizing(instance_type="4096x256")))
    nothing_left()


@pytest.fixture
def tiny_pool(daemon: Libvirtd, connection: Any) -> Any:
    """A pool with room for half a seed, on a mount that only libvirtd sees."""
    folder = daemon.base / "tiny"
    folder.mkdir()
    daemon.inside("mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder))
    pool = connection.storagePoolCreateXML(POOL_OF.format(name="tiny", path=folder), 0)
    yield pool
    pool.destroy()
    daemon.inside("umount", "--lazy", str(folder))
    folder.rmdir()


async def test_no_disk(driver: Any, request_of: Any, tiny_pool: Any) -> None:
    with pytest.raises(CapacityError, match="LIBVIRT_POOL"):
        await driver(LIBVIRT_POOL="tiny").create(request_of(NAME))
    tiny_pool.refresh()
    assert tiny_pool.listVolumes() == []


async def test_an_image_that_the_pool_does_not_know_yet(
    driver: Any, daemon: Libvirtd, connection: Any, request_of: Any
) -> None:
    """Somebody copied it into the folder: one refresh finds it, and none is made when it is known."""
    image = file_of(daemon, "podvm-new.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", str(image), "1M")
    calls = Calls(LEASED)
    made = driver(calls, LIBVIRT_VOL_NAME="podvm-new.qcow2", LIBVIRT_ROOT_DISK_SIZE="1")
    instance = await made.create(request_of(NAME))
    assert calls.names.count("virStoragePool.refresh") == 1
    root = file_of(daemon, f"{NAME}-root.qcow2")
    info = qemu_img("info", "-U", str(root))
    assert f"backing file: {image}" in info
    assert "virtual size: 1 GiB" in info
    await made.delete(instance.id)
    again = await made.create(request_of(NAME))
    await made.delete(again.id)
    assert calls.names.count("virStoragePool.refresh") == 1, "defect of the reference: a refresh each time"
    connection.storagePoolLookupByName("default").storageVolLookupByName(image.name).delete()


async def test_an_image_that_is_not_there(driver: Any, request_of: Any, nothing_left: Any) -> None:
    with pytest.raises(ProviderError, match=r"LIBVIRT_VOL_NAME: there is no volume nothing\.qcow2 in the pool default"):
        await driver(LIBVIRT_VOL_NAME="nothing.qcow2").create(request_of(NAME))
    nothing_left()


async def test_an_alternate_image_that_is_not_there(driver: Any, request_of: Any, nothing_left: Any) -> None:
    """The words that operators' tests look for in the pod's event (user-pains.md 5.1), and where the name came from."""
    made = driver(IMAGE_ALLOWLIST="non-*")
    with pytest.raises(ProviderError, match=r"the annotation \S*hypervisor\.image: there is no volume") as caught:
        await made.create(replace(request_of(NAME), image="non-existing-image"))
    assert "Error in creating volume: Can't retrieve volume non-existing-image" in str(caught.value)
    nothing_left()


HEADS = {b"text\n" * 200: False, bytes(510) + b"\x55\xaa": True, b"": False}


@pytest.mark.parametrize("head", list(HEADS), ids=["text", "partitions", "blank"])
async def test_a_raw_image_that_may_be_no_disk(
    driver: Any, daemon: Libvirtd, connection: Any, request_of: Any, head: bytes
) -> None:
    """Firmware would look for a boot loader until the time for an address is up."""
    image = file_of(daemon, "podvm-new.img")
    image.write_bytes(head.ljust(1 << 20, b"\0"))
    made = driver(Calls(LEASED), LIBVIRT_KERNEL="", LIBVIRT_INITRD="", LIBVIRT_VOL_NAME=image.name)
    if HEADS[head]:
        instance = await made.create(request_of(NAME))
        await made.delete(instance.id)
    else:
        with pytest.raises(InvalidRequest, match=r"LIBVIRT_VOL_NAME: the volume podvm-new.img .* is no disk image"):
            await made.create(request_of(NAME))
        (found,) = [one for one in await made.check() if one.subject == "LIBVIRT_VOL_NAME"]
        assert found.severity is Severity.ERROR
    connection.storagePoolLookupByName("default").storageVolLookupByName(image.name).delete()


@pytest.mark.parametrize(
    "settings",
    [
        {"LIBVIRT_EFI_FIRMWARE": "auto", "LIBVIRT_TPM": "true", "LIBVIRT_SECURE_BOOT": "true"},
        {"LIBVIRT_EFI_FIRMWARE": "/usr/share/OVMF/OVMF_CODE_4M.fd", "LIBVIRT_TPM": "true"},
        {
            "LIBVIRT_EFI_FIRMWARE": "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
            "LIBVIRT_EFI_VARS": "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
            "LIBVIRT_SECURE_BOOT": "true",
        },
        {"LIBVIRT_EFI_FIRMWARE": "none"},
        {"LIBVIRT_CPUSET": "0"},
    ],
    ids=["secure boot and TPM", "path and TPM", "secure path", "bios", "cpuset"],
)
async def test_machines_that_start(driver: Any, request_of: Any, settings: dict[str, str], nothing_left: Any) -> None:
    """Firmware's variables and the TPM's state go with the pod VM."""
    made = driver(Calls(LEASED), **settings)
    instance = await made.create(request_of(NAME))
    assert await made.state(instance.id) is InstanceState.RUNNING
    await made.delete(instance.id)
    nothing_left()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LIBVIRT_EFI_FIRMWARE": "/nowhere/OVMF.fd"}, "LIBVIRT_EFI_FIRMWARE: "),
        (
            {"LIBVIRT_EFI_FIRMWARE": "/usr/share/OVMF/OVMF_CODE_4M.fd", "LIBVIRT_EFI_VARS": "/nowhere/VARS.fd"},
            "LIBVIRT_EFI_VARS: ",
        ),
        ({"LIBVIRT_CPUSET": "4000-4001"}, "LIBVIRT_CPUSET: "),
    ],
)
async def test_what_the_host_has_not(driver: Any, request_of: Any, settings: dict[str, str], named: str) -> None:
    """The error names the setting, as the operator has no other way to it."""
    with pytest.raises(Misconfigured, match=named):
        await driver(**settings).create(request_of(NAME))


@pytest.mark.parametrize("launch", ["sev", "sev-snp", "tdx"])
async def test_confidential_vms_are_refused_here(driver: Any, request_of: Any, launch: str, nothing_left: Any) -> None:
    """This host has none of the kinds: a clear error, and never an ordinary VM instead."""
    made = driver(LIBVIRT_LAUNCH_SECURITY=launch)
    with pytest.raises(Misconfigured, match=f"LIBVIRT_LAUNCH_SECURITY is {launch}"):
        await made.create(request_of(NAME))
    errors = [one.subject for one in await made.check() if one.severity is Severity.ERROR]
    assert errors == ["LIBVIRT_LAUNCH_SECURITY"]
    nothing_left()


async def test_kvm_that_libvirt_offers_and_that_does_not_work(driver: Any, request_of: Any) -> None:
    """As on a machine with broken nested virtualisation, the build machine for one."""
    calls = Calls(LEASED)
    made = driver(calls, LIBVIRT_ACCELERATION="auto")
    await made.check()
    calls.errors["virDomain.create"] = Injected("qemu-system-x86_64: failed to initialize kvm: Invalid argument")
    instance = await made.create(request_of(NAME))
    found = {one.subject: one for one in await made.check()}
    assert found["LIBVIRT_ACCELERATION"].severity is Severity.WARNING
    await made.delete(instance.id)


async def test_what_is_wrong_is_found_before_a_pod_asks(driver: Any) -> None:
    made = driver(
        LIBVIRT_POOL="nowhere", LIBVIRT_NET="nothing", LIBVIRT_VOL_NAME="none", LIBVIRT_EFI_FIRMWARE="/not/there.fd"
    )
    found = {one.subject: one for one in await made.check()}
    assert found["LIBVIRT_URI"].severity is Severity.OK
    for subject in ("LIBVIRT_POOL", "LIBVIRT_NET", "LIBVIRT_VOL_NAME"):
        assert found[subject].severity is Severity.ERROR, subject
        assert found[subject].remedy
    assert found["LIBVIRT_EFI_FIRMWARE"].severity is Severity.WARNING


async def test_a_network_without_dhcp_is_found(driver: Any, connection: Any) -> None:
    network = connection.networkCreateXML("<network><name>bare</name><bridge name='caalvbare'/></network>")
    found = {one.subject: one for one in await driver(LIBVIRT_NET="bare").check()}
    assert found["LIBVIRT_NET"].severity is Severity.ERROR
    assert "hands out no addresses" in found["LIBVIRT_NET"].detail
    network.destroy()


async def test_console_logs_that_were_moved_aside(driver: Any, daemon: Libvirtd, request_of: Any) -> None:
    """virtlogd makes files that the pool has never heard of."""
    made = driver(Calls(LEASED))
    instance = await made.create(request_of(NAME))
    for number in range(3):
        file_of(daemon, f"{NAME}-console.log.{number}").write_text("old")
    await made.delete(instance.id)
    assert list(daemon.pool.iterdir()) == []


async def test_a_dead_pod_vm_still_has_its_console(driver: Any, connection: Any, request_of: Any) -> None:
    made = driver()
    instance = await made.create(request_of(NAME))
    await said(made, instance.id, b"small guest: data")
    connection.lookupByUUIDString(instance.id).destroy()
    assert await made.state(instance.id) is InstanceState.STOPPED
    assert b"small guest: data" in await made.console(instance.id)
    await made.delete(instance.id)
    assert await made.console(instance.id) == b""


@pytest.mark.parametrize("state", ["paused", "shut off"])
async def test_deleting_in_any_state(driver: Any, connection: Any, request_of: Any, state: str) -> None:
    """The reference destroys what runs or is paused, and leaves the others' disks in use."""
    made = driver(Calls(LEASED))
    instance = await made.create(request_of(NAME))
    domain = connection.lookupByUUIDString(instance.id)
    {"paused": domain.suspend, "shut off": domain.destroy}[state]()
    await made.delete(instance.id)


async def test_a_pod_vm_that_died_is_made_anew(driver: Any, connection: Any, request_of: Any) -> None:
    made = driver(Calls(LEASED))
    first = await made.create(request_of(NAME))
    connection.lookupByUUIDString(first.id).destroy()
    second = await made.create(request_of(NAME))
    assert second.id != first.id
    assert [one.id for one in await made.list_owned(request_of(NAME).owner)] == [second.id]
    await made.delete(second.id)
