"""A worker node in namespaces of the test's own: relay and node as real processes, pods on the `local` driver."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caa.testing import spaces
from caa.testing.demo import world
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.demo.scenario import DAEMONS_OWN, Stage
from caa.wire.client import Client, connect


@pytest.fixture
def own_namespaces() -> Iterator[None]:
    """This thread, and what it starts, has network and mounts of its own, prepared as a worker node."""
    with spaces.worker_node():
        yield


@dataclass
class Node:
    """The running daemons, and where they listen."""

    paths: Paths
    daemons: Daemons
    stage: Stage
    ready: world.Snapshot

    async def client(self) -> Client:
        return await connect(str(self.paths.hypervisor))

    async def nothing_left(self) -> None:
        """Processes are not looked at, for other programs of this machine are seen too; their cgroups are."""
        left = await self.stage.settled(self.ready, ignore=("processes", *DAEMONS_OWN))
        assert not left


@pytest.fixture
def paths() -> Iterator[Paths]:
    """A short folder that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="caa-") as folder:
        Path(folder).chmod(0o755)
        yield Paths(Path(folder))


@pytest.fixture
async def node(own_namespaces: None, paths: Paths) -> AsyncIterator[Node]:
    """Daemons that are up; at the end nothing of any sandbox may be left."""
    daemons = Daemons(paths, "local", {**os.environ})
    stage = Stage(paths)
    await daemons.start()
    try:
        made = Node(paths, daemons, stage, await stage.look())
        yield made
        await made.nothing_left()
    finally:
        await daemons.stop()
