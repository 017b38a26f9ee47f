"""A worker node whose pods are real VMs: relay and node as processes, a libvirtd for the tests of a module."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest

from caa.testing import spaces
from caa.testing.demo import world
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.demo.scenario import DAEMONS_OWN, Stage
from caa.testing.libvirtd import Libvirtd
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / ".cache" / "image" / "tiny"
PATIENCE = 60.0  # seconds for what a booting VM does


@dataclass
class Host:
    """The libvirt host, seen past our driver: what it has, and what is left there."""

    daemon: Libvirtd

    @contextmanager
    def connection(self) -> Iterator[Any]:
        opened = libvirt.open(self.daemon.uri)
        try:
            yield opened
        finally:
            opened.close()

    def domains(self) -> dict[str, str]:
        """The UUIDs of the VMs that run, by name."""
        with self.connection() as one:
            return {dom.name(): dom.UUIDString() for dom in one.listAllDomains() if dom.isActive()}

    def left(self) -> list[str]:
        """Domains, volumes as libvirt knows them and as files, QEMUs."""
        with self.connection() as one:
            return [*_left(one), *(each for each in self.daemon.processes() if "qemu" in each)]

    def clear(self) -> None:
        """Whatever a failed test has left would fail the next one."""
        with self.connection() as one:
            _cleared(one)


def _left(connection: Any) -> list[str]:
    found = [f"domain {one.name()}" for one in connection.listAllDomains()]
    for pool in connection.listAllStoragePools():
        pool.refresh()
        found += [f"{pool.name()}: {one}" for one in pool.listVolumes() if one.startswith("podvm-pod")]
    return found


def _cleared(connection: Any) -> None:
    for domain in connection.listAllDomains():
        with suppress(libvirt.libvirtError):
            domain.destroy()
        domain.undefine()
    for pool in connection.listAllStoragePools():
        for volume in pool.listAllVolumes():
            volume.delete()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """In namespaces that are the node's too, and this thread's."""
    base = Path(tempfile.mkdtemp(prefix="caa-lv-"))
    cache = ROOT / ".cache" / "libvirtd"
    try:
        with spaces.worker_node(), Libvirtd(base, cache=cache, callers_network=True) as daemon:
            daemon.define_pool_and_network()
            yield Host(daemon)
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def tiny() -> dict[str, str]:
    """Settings of the tiny image."""
    subprocess.run([sys.executable, "-m", "podvm.image", "tiny"], cwd=ROOT, check=True, capture_output=True)
    return {
        "LIBVIRT_KERNEL": str(TINY / "vmlinux"),
        "LIBVIRT_INITRD": str(TINY / "initrd.cpio"),
        "LIBVIRT_CMDLINE": (TINY / "cmdline").read_text().strip(),
    }


@dataclass
class Worker:
    """The running daemons, where they listen, and the pods' namespaces."""

    host: Host
    paths: Paths
    daemons: Daemons
    stage: Stage
    ready: world.Snapshot
    attached: list[str] = field(default_factory=list)

    async def restart(self, **settings: str) -> None:
        """The node anew, with other settings."""
        self.daemons.environ = {**self.daemons.environ, **settings}
        await self.daemons.kill("node")
        await self.daemons.start_one("node")
        await self.daemons.serves("node")

    async def options(self, number: int = 0) -> PodOptions:
        """A pod with a namespace, as a CNI plugin makes it."""
        name = f"pod{number}"
        if name not in self.attached:
            self.attached.append(name)
            await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{10 + number}")
        return PodOptions(name=name, namespace="test", netns=str(world.NETNS / name))

    async def start(self, kind: Kind = Kind.GO, number: int = 0) -> Pod:
        return await Shim(str(self.paths.hypervisor), kind).start(await self.options(number))

    async def until(self, holds: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(holds):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"waited in vain for {what}; the node said: {self.log()[-3000:]}")

    async def said(self, words: str) -> None:
        await self.until(lambda: words in self.log(), f"{words!r} in the node's log")

    async def vm_runs(self) -> str:
        """Wait for a VM, which then has its boot before it; its UUID."""
        await self.until(self.host.domains, "a VM that runs")
        (uuid,) = (await asyncio.to_thread(self.host.domains)).values()
        return str(uuid)

    def log(self) -> str:
        return self.paths.log("node").read_text()

    async def nothing_left(self) -> None:
        """Not of any sandbox: no domain, volume, QEMU, and nothing on the node."""
        for name in self.attached:
            await asyncio.to_thread(world.detach, name)
        self.attached.clear()
        assert await self.stage.settled(self.ready, ignore=("processes", *DAEMONS_OWN)) == {}
        assert await asyncio.to_thread(self.host.left) == []


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix="caa-") as folder:
        Path(folder).chmod(0o755)
        yield Paths(Path(folder))


@pytest.fixture
async def worker(host: Host, paths: Paths, tiny: dict[str, str]) -> AsyncIterator[Worker]:
    """Up, with the tiny image; at the end nothing of any sandbox may be left."""
    settings = {
        "LIBVIRT_URI": host.daemon.uri,
        "LIBVIRT_ACCELERATION": "qemu",  # the same everywhere
        "LIBVIRT_CPU": "1",
        "LIBVIRT_MEMORY": "512",
        "HOST_INTERFACE": "caalv150",  # the network is isolated, its guests have no default route
        **tiny,
    }
    daemons = Daemons(paths, "libvirt", {**os.environ, **settings})
    stage = Stage(paths)
    await daemons.start()
    try:
        made = Worker(host, paths, daemons, stage, await stage.look())
        yield made
        await made.nothing_left()
    finally:
        await daemons.stop()
        await asyncio.to_thread(host.clear)
