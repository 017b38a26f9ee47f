"""A pod whose container mounts a disk: attached to a real VM, mounted in the guest, kept when the pod goes."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caa.testing.demo import world
from caa.testing.demo.daemons import settings
from caa.testing.shim.kinds import ContainerOptions
from caa.testing.shim.pod import Pod

SOURCE = "/var/lib/kubelet/pods/6d3a0b52/volumes/kubernetes.io~csi/pvc-1/mount"
VOLUME = f"<volume><name>pvc-1</name><capacity>{320 << 20}</capacity><target><format type='raw'/></target></volume>"
FIRST = (
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
        "runc", "nft", "ip", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq", "mkfs.xfs", "losetup"
    ),
]


@dataclass
class Disk:
    """A volume of the pool, with a file system on it."""

    path: Path

    def content(self, folder: Path) -> dict[str, str]:
        """Its files; mounted in the namespace of this test."""
        folder.mkdir()
        world.run("mount", "-o", "loop", str(self.path), str(folder))
        try:
            return {one.name: one.read_text() for one in folder.iterdir()}
        finally:
            world.run("umount", str(folder))


@pytest.fixture
def disk(host: Any) -> Iterator[Disk]:
    with host.connection() as connection:
        volume = connection.storagePoolLookupByName("default").createXML(VOLUME, 0)
        world.run("mkfs.xfs", "-q", "-f", volume.path())
        yield Disk(Path(volume.path()))  # `worker` removes all volumes at its end


async def begin_with_volumes(worker: Any) -> None:
    """The node dies, and the next one has a source of volumes."""
    await worker.daemons.kill("node")
    with worker.paths.log("node").open("ab") as log:
        worker.daemons.running["node"] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            NODE,
            env={**worker.daemons.environ, **settings(worker.paths, "libvirt")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    await worker.daemons.serves("node")


async def said(pod: Pod, script: str) -> str:
    options = ContainerOptions(name="c", args=("/bin/sh", "-c", script), mounts={"/data": SOURCE})
    result = await (await pod.run(options)).result()
    assert result.exit_code == 0, result
    return result.stdout.decode()


async def test_a_disk_is_attached_mounted_and_kept(disk: Disk, worker: Any) -> None:
    await begin_with_volumes(worker)
    pod = await worker.start()
    assert (await said(pod, FIRST)).split("\n")[:4] == ["caa-seed caa-data-0 ", "xfs", "2000:2775", "first"]
    await worker.restart()  # this one has no source, and the pod goes on as it was
    assert await said(pod, "cat /data/one; echo second > /data/two") == "first\n"
    await pod.stop()
    await worker.nothing_left()
    assert await asyncio.to_thread(disk.content, worker.paths.top / "m") == {"one": "first\n", "two": "second\n"}
