"""The disk of the state directory takes no writes while pods run: starts are refused with the reason, pods live, stops
are done, and all is well again once the disk is."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim
from caa.wire.status import RpcError

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]
KINDS = pytest.mark.parametrize("kind", list(Kind))
LOOP = ["/bin/sh", "-c", "while :; do sleep 1; done"]


@pytest.fixture
def disk(own_namespaces: None, paths) -> Iterator[Path]:
    """A small disk of its own for the state directory, in the test's own mount namespace."""
    paths.state.mkdir(mode=0o700)
    world.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(paths.state))
    yield paths.state
    world.run("umount", "--lazy", str(paths.state))


@dataclass(frozen=True)
class Broken:
    """A file system on a loop device that can be told to find itself damaged, as a dying disk makes it."""

    image: Path
    place: Path

    def mount(self) -> None:
        world.run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place))

    def breaks(self) -> None:
        """The kernel makes it read-only under all who have files open there; `mount` alone could not."""
        device = world.run("findmnt", "-no", "SOURCE", str(self.place)).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")

    def replace(self) -> None:
        """An empty disk in its place."""
        world.run("umount", "--lazy", str(self.place))
        world.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(self.place))


@pytest.fixture
def broken(own_namespaces: None, paths) -> Iterator[Broken]:
    """The state directory on a small ext4 in the test's own mount namespace; the loop device goes with it."""
    paths.state.mkdir(mode=0o700)
    made = Broken(paths.top / "image", paths.state)
    with made.image.open("wb") as file:
        file.truncate(8 << 20)
    world.run("mkfs.ext4", "-q", "-F", str(made.image))
    made.mount()
    yield made
    world.run("umount", "--lazy", str(paths.state))


def _fill(disk: Path) -> Path:
    """Take every byte that is left; `unlink` gives them back."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


async def _start(node, kind: Kind, number: int = 0) -> Pod:
    name = f"pod{number}"
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{10 + number}")
    options = PodOptions(name=name, namespace="test", netns=str(world.NETNS / name))
    try:
        pod = await Shim(str(node.paths.hypervisor), kind).start(options)
    except BaseException:
        await asyncio.to_thread(world.detach, name)
        raise
    node.stage.groups += await asyncio.to_thread(world.groups_of, _vm(pod))
    return pod


def _vm(pod: Pod) -> str:
    return f"podvm-{pod.options.name}-{pod.sandbox_id[:8]}"


async def _alive(pod: Pod, container) -> None:
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    assert not pod.failed.is_set()


async def _gone(pod: Pod) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(world.groups_of, _vm(pod)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _refused(node, kind: Kind, disk: Path, why: str = "full") -> None:
    with pytest.raises(RpcError) as refused:
        await _start(node, kind, 5)
    for part in (str(disk), "CAA_STATE_DIR", "takes no writes", why):
        assert part in str(refused.value)


async def _end(*pods: Pod) -> None:
    for pod in pods:
        await pod.stop()
        await asyncio.to_thread(world.detach, pod.options.name)


@KINDS
async def test_it_fills_up_and_is_freed(disk, node, kind):
    keeps, stops = await _start(node, kind, 0), await _start(node, kind, 1)
    container = await keeps.container("c", LOOP)
    ballast = await asyncio.to_thread(_fill, disk)
    await _refused(node, kind, disk)
    await _alive(keeps, container)
    await _end(stops)
    await _gone(stops)
    await _refused(node, kind, disk)
    await _alive(keeps, container)
    await asyncio.to_thread(ballast.unlink)
    late = await _start(node, kind, 2)
    await _end(keeps, late)


async def test_the_node_dies_before_a_stop_could_be_written(disk, node):
    """The pod VM was removed although nothing could be written; the next node finds the record and its end."""
    keeps, stops = await _start(node, Kind.GO, 0), await _start(node, Kind.GO, 1)
    container = await keeps.container("c", LOOP)
    ballast = await asyncio.to_thread(_fill, disk)
    await _end(stops)
    await _gone(stops)
    await node.daemons.kill("node")
    await _alive(keeps, container)
    await asyncio.to_thread(ballast.unlink)
    await node.daemons.start_one("node")
    await _alive(keeps, container)
    await _end(keeps)


@KINDS
async def test_a_start_under_way_while_it_fills_up_is_undone(disk, node, kind):
    """Fill it at each of several moments: the start is whole or refused, and nothing of it is left."""
    for number, moment in enumerate((0.02, 0.05, 0.1, 0.2)):
        starting = asyncio.create_task(_start(node, kind, number))
        await asyncio.sleep(moment)
        ballast = await asyncio.to_thread(_fill, disk)
        done = await asyncio.wait_for(asyncio.gather(starting, return_exceptions=True), 60)
        await asyncio.to_thread(ballast.unlink)
        if isinstance(done[0], Pod):
            await _end(done[0])
        else:
            assert "CAA_STATE_DIR" in str(done[0])


@KINDS
async def test_it_is_read_only_when_the_node_comes_back(disk, node, kind):
    """It does not start and says why; the pod lives. The relay cannot write a StopVM down then, so it holds the call
    until the node is back; runtime-rs does not wait for that, and its closed connection tells of the end."""
    node.daemons.environ = {**node.daemons.environ, "CLOSED_GRACE": "1s", "UNOPENED_GRACE": "1s"}
    keeps, stops = await _start(node, kind, 0), await _start(node, kind, 1)
    container = await keeps.container("c", LOOP)
    await node.daemons.kill("node")
    await asyncio.to_thread(world.run, "mount", "-o", "remount,ro", str(disk))
    await node.daemons.start_one("node")
    assert await asyncio.wait_for(node.daemons.running.pop("node").wait(), 20) == 1
    log = await asyncio.to_thread(node.paths.log("node").read_text)
    assert "Read-only" in log
    assert str(disk) in log
    await _alive(keeps, container)
    stopping = asyncio.create_task(_end(stops))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(world.run, "mount", "-o", "remount,rw", str(disk))
    await node.daemons.start_one("node")
    await asyncio.wait_for(stopping, 20)
    await _gone(stops)
    await _alive(keeps, container)
    await _end(keeps)


@pytest.mark.needs("mkfs.ext4", "findmnt")
@KINDS
async def test_it_becomes_read_only_under_the_running_node(broken, node, kind):
    """As a full one, but such a file system does not recover: the node gets another disk and finds its pods again."""
    keeps, stops = await _start(node, kind, 0), await _start(node, kind, 1)
    container = await keeps.container("c", LOOP)
    await asyncio.to_thread(broken.breaks)
    await _refused(node, kind, broken.place, why="I/O error")
    await _alive(keeps, container)
    await _end(stops)
    await _gone(stops)
    await _refused(node, kind, broken.place, why="I/O error")
    await _alive(keeps, container)
    await node.daemons.kill("node")
    await asyncio.to_thread(broken.replace)
    await node.daemons.start_one("node")
    late = await _start(node, kind, 2)
    await _alive(keeps, container)
    await _end(keeps, late)
