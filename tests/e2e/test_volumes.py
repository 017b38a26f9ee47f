"""A pod whose container mounts a disk: attached to a real VM, mounted in the guest, kept when the pod goes."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest

from caa.testing.demo import clouds, world
from caa.testing.demo.daemons import Daemons, Paths, settings
from caa.testing.demo.scenario import DAEMONS_OWN, Stage
from caa.testing.shim.kinds import ContainerOptions, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / ".cache" / "image" / "tiny"
SOURCE = "/var/lib/kubelet/pods/6d3a0b52/volumes/kubernetes.io~csi/pvc-1/mount"
VOLUME = "<volume><name>pvc-1</name><capacity>{size}</capacity><target><format type='raw'/></target></volume>"
SIZE = 320 << 20  # xfs takes no smaller one
WRITE = (
    'for one in /sys/class/block/vd*; do echo -n "$(cat $one/serial) "; done; echo; '
    "grep ' /data ' /proc/mounts | cut -d' ' -f3; stat -c %g:%a /data; echo first > /data/one; cat /data/one"
)
# The node as it will be with a CSI driver beside it: somebody knows the volumes of one pod.
NODE = f"""
import sys
from functools import partial
from caa.cli import main
from caa.model.volume import Volume
from caa.node import daemon

class Source:
    async def of(self, sandbox, pod):
        return [Volume(source={SOURCE!r}, disk="pvc-1", fs_type="xfs", fs_group=2000)] if pod.pod_name == "pod0" else []

daemon.assembled = partial(daemon.assembled, volumes=Source())
sys.exit(main(["node"]))
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.needs(
        "runc", "nft", "ip", "unshare", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq", "mkfs.xfs", "losetup"
    ),
]


class WithVolumes(Daemons):
    """Daemons whose node knows volumes."""

    async def start_one(self, name: str, **more: str) -> None:
        if name != "node":
            await super().start_one(name, **more)
            return
        with self.paths.log(name).open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                NODE,
                env={**self.environ, **settings(self.paths, self.provider), **more},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@dataclass
class Field:
    """The daemons on a libvirtd of their own, and the disk in its pool."""

    paths: Paths
    daemons: Daemons
    disk: Path
    pool: Any


@pytest.fixture(scope="module")
def image() -> Path:
    subprocess.run([sys.executable, "-m", "podvm.image", "tiny"], cwd=ROOT, check=True, capture_output=True)
    return IMAGE


@pytest.fixture
async def field(own_namespaces: None, paths: Paths, image: Path) -> AsyncIterator[Field]:
    stage = Stage(paths)
    async with clouds.opened("libvirt", paths.top / "c", image=image) as cloud:
        stage.cloud = cloud
        connection = libvirt.open(cloud.settings["LIBVIRT_URI"])
        pool = connection.storagePoolLookupByName("default")
        pool.createXML(VOLUME.format(size=SIZE), 0)
        disk = Path(pool.storageVolLookupByName("pvc-1").path())
        await asyncio.to_thread(world.run, "mkfs.xfs", "-q", "-f", str(disk))
        daemons = WithVolumes(paths, "libvirt", {**os.environ, **cloud.settings})
        await daemons.start()
        try:
            ready = await stage.look()
            yield Field(paths, daemons, disk, pool)
            # Processes of other programs are seen too; QEMU's are the domains.
            assert not await stage.settled(ready, ("processes", *DAEMONS_OWN))
            assert pool.listVolumes() == ["pvc-1"]
            assert not connection.listAllDomains()
        finally:
            await daemons.stop()
            connection.close()


async def pod(field: Field, name: str, number: int) -> Pod:
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{number}")
    options = PodOptions(name=name, namespace="test", netns=str(world.NETNS / name), sandbox_id=f"{number:02x}" * 32)
    return await Shim(str(field.paths.hypervisor)).start(options)


async def said(pod: Pod, script: str, *, source: str = SOURCE) -> str:
    options = ContainerOptions(name="c", args=("/bin/sh", "-c", script), mounts={"/data": source})
    result = await (await pod.run(options)).result()
    assert result.exit_code == 0, result
    return result.stdout.decode()


def on_disk(disk: Path, folder: Path) -> dict[str, str]:
    """What is in the file system of the disk; mounted in the namespace of this test."""
    folder.mkdir()
    world.run("mount", "-o", "loop", str(disk), str(folder))
    try:
        return {one.name: one.read_text() for one in folder.iterdir()}
    finally:
        world.run("umount", str(folder))


async def test_a_disk_is_attached_mounted_and_kept(field: Field) -> None:
    made = await pod(field, "pod0", 10)
    try:
        serials, mount, group, read = (await said(made, WRITE)).split("\n")[:4]
        assert serials == "caa-seed caa-data-0 "
        assert mount == "xfs"
        assert group == "2000:2775"
        assert read == "first"
        # The node dies; the next one gives the relay the same volumes, from the record.
        await field.daemons.kill("node")
        await field.daemons.start_one("node")
        await field.daemons.serves("node")
        assert await said(made, "cat /data/one; echo second > /data/two") == "first\n"
    finally:
        await made.stop()
        await asyncio.to_thread(world.detach, "pod0")
    await gone(field)
    found = await asyncio.to_thread(on_disk, field.disk, field.paths.top / "m")
    assert found == {"one": "first\n", "two": "second\n"}


async def gone(field: Field) -> None:
    """StopVM is answered when it is durable; the VM, and with it the disk's lock, goes a moment later."""
    end = time.monotonic() + 30
    while field.pool.listVolumes() != ["pvc-1"]:
        assert time.monotonic() < end, field.pool.listVolumes()
        await asyncio.sleep(0.05)
