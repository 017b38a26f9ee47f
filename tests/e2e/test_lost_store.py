"""The node's records are damaged or gone while pods run: the pods are known again, whole, and end as any other."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim
from caa.wire.proto import podvminfo

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]
KINDS = pytest.mark.parametrize("kind", list(Kind))


async def _start(node, kind: Kind, name: str = "pod0", place: int = 10) -> Pod:
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{place}")
    options = PodOptions(name=name, namespace="test", netns=str(world.NETNS / name))
    pod = await Shim(str(node.paths.hypervisor), kind).start(options)
    node.stage.groups += await asyncio.to_thread(world.groups_of, f"podvm-{name}-{pod.sandbox_id[:8]}")
    return pod


def _damage(state: Path) -> None:
    """The log beside it goes too: SQLite would mend the file from it."""
    (state / "node.db").write_bytes(b"no database" * 1000)
    (state / "node.db-wal").unlink()


def _lose(state: Path) -> None:
    for path in state.glob("node.db*"):
        path.unlink()


LOSSES = pytest.mark.parametrize("loss", [_damage, _lose], ids=["damaged", "gone"])


async def _said(node, words: str) -> None:
    log = node.paths.log("node")
    async with asyncio.timeout(20):
        while words not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _without_records(node, loss) -> None:
    await node.daemons.kill("node")
    await asyncio.to_thread(loss, node.paths.state)


def _links(name: str) -> set[str]:
    return {link["ifname"] for link in json.loads(world.run("ip", "-json", "-netns", name, "link"))}


@KINDS
@LOSSES
async def test_a_pod_is_whole_again(node, kind, loss):
    """Exec, GetInfo, and a StopVM that takes the tunnel down although the namespace stays."""
    pod = await _start(node, kind)
    container = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    await _without_records(node, loss)
    await node.daemons.start_one("node")
    client = await node.client()
    request = podvminfo.GetInfoRequest(PodName="pod0", PodNamespace="test", Wait=True)
    info = await client.call("podvminfo.PodVMInfo/GetInfo", request, timeout=20)
    await client.close()
    assert f"podvm-pod0-{pod.sandbox_id[:8]}" == info.VMID
    await _said(node, "the store is rebuilt from what runs")
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    assert "vxlan1" in await asyncio.to_thread(_links, "pod0")
    await pod.stop()
    assert not pod.stop_errors
    await _said(node, "sandbox removed")
    assert "vxlan1" not in await asyncio.to_thread(_links, "pod0")
    await asyncio.to_thread(world.detach, "pod0")


@KINDS
@LOSSES
async def test_a_stop_that_came_while_nobody_knew_of_it(node, kind, loss):
    pod = await _start(node, kind)
    await _without_records(node, loss)
    await pod.stop()
    await node.daemons.start_one("node")
    await _said(node, "is adopted")
    assert not pod.stop_errors
    await asyncio.to_thread(world.detach, "pod0")


@LOSSES
async def test_the_log_says_why_and_the_next_start_does_not_ask_again(node, loss):
    pod = await _start(node, Kind.GO)
    await _without_records(node, loss)
    await node.daemons.start_one("node")
    await _said(node, "the store is rebuilt from what runs")
    log = await asyncio.to_thread(node.paths.log("node").read_text)
    assert ("is set aside as" if loss is _damage else "there was no store") in log
    await node.daemons.kill("node")
    await node.daemons.start_one("node")
    await pod.stop()
    await _said(node, "sandbox removed")
    again = (await asyncio.to_thread(node.paths.log("node").read_text))[len(log) :]
    assert "rebuilding" not in again
    await asyncio.to_thread(world.detach, "pod0")


async def test_pods_that_start_before_all_is_known_again(node):
    """The relay does not answer for a while: a new pod's tunnel must not take the id of one that stands."""
    old = await _start(node, Kind.GO)
    await _without_records(node, _lose)
    await node.daemons.start_one("node")
    new = await _start(node, Kind.RS, "pod1", 11)
    await _said(node, "the store is rebuilt from what runs")
    for pod, name in ((old, "pod0"), (new, "pod1")):
        assert not pod.failed.is_set()
        await pod.stop()
        assert not pod.stop_errors
        await asyncio.to_thread(world.detach, name)


async def test_a_state_directory_that_is_gone_altogether(node):
    """Even its certificates: the link that stands goes on, and the pod can be stopped."""
    pod = await _start(node, Kind.GO)
    container = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    await node.daemons.kill("node")
    await asyncio.to_thread(lambda: [_removed(one) for one in node.paths.state.iterdir() if one.name != "stops"])
    await node.daemons.start_one("node")
    await _said(node, "the store is rebuilt from what runs")
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    await pod.stop()
    assert not pod.stop_errors
    await asyncio.to_thread(world.detach, "pod0")


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _made_by(state: Path, provider: str) -> None:
    with sqlite3.connect(state / "node.db") as store:
        store.execute("UPDATE sandboxes SET record = json_set(record, '$.provider', ?)", (provider,))
    store.close()


async def test_another_provider_is_refused_while_pods_run(node):
    """The node does not start, the pod lives, its stop is kept; with the provider of before all goes on."""
    pod = await _start(node, Kind.GO)
    container = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    await node.daemons.kill("node")
    await asyncio.to_thread(_made_by, node.paths.state, "elsewhere")
    await node.daemons.start_one("node")
    assert await asyncio.wait_for(node.daemons.running.pop("node").wait(), 20) == 2
    log = await asyncio.to_thread(node.paths.log("node").read_text)
    for part in ("CLOUD_PROVIDER", "test/pod0", "Set it back to elsewhere", "FORGET_PROVIDER"):
        assert part in log
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    await pod.stop()
    assert not pod.stop_errors
    await asyncio.to_thread(_made_by, node.paths.state, "local")
    await node.daemons.start_one("node")
    await _said(node, "sandbox removed")
    await asyncio.to_thread(world.detach, "pod0")
