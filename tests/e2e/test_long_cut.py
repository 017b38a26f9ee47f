"""A pod VM that cannot be reached for two minutes, with both shims' habits: health checks, polls, deadlines."""

import asyncio
import json
import re

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.shim import Shim

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip"), pytest.mark.slow]
DARK = 120.0  # seconds; the Go shim ends a pod at the first Check that is 30 s without an answer, runtime-rs at 90 s
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def _plugged(how: str) -> None:
    """Switch the cables of all pod VMs "up" or "down", at the node's end: in between nothing passes."""
    cables = [one["ifname"] for one in json.loads(world.run("ip", "-json", "link")) if one["ifname"].startswith("caal")]
    assert len(cables) == len(Kind)
    for cable in cables:
        world.run("ip", "link", "set", cable, how)


@pytest.mark.timeout(240)
async def test_two_minutes_in_the_dark(node):
    names = {kind: f"pod{number}" for number, kind in enumerate(Kind)}
    for number, name in enumerate(names.values()):
        await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{number + 10}")
    shims = {kind: Shim(str(node.paths.hypervisor), kind) for kind in Kind}
    pods = {
        kind: await shims[kind].start(PodOptions(name=name, namespace="test", netns=str(world.NETNS / name)))
        for kind, name in names.items()
    }
    counters = {kind: await pod.container("c", ["/bin/sh", "-c", COUNT]) for kind, pod in pods.items()}
    for counter in counters.values():
        await counter.output(b"\n10\n")
    await asyncio.to_thread(_plugged, "down")
    await asyncio.sleep(DARK)
    assert not [kind for kind, pod in pods.items() if pod.failed.is_set()]
    await asyncio.to_thread(_plugged, "up")
    for kind, counter in counters.items():
        beyond = str(int(DARK / 0.05 / 2)).encode()
        await counter.output(b"\n" + beyond + b"\n", timeout=30)
        assert (await pods[kind].exec(counter, ["/bin/echo", "alive"])).stdout == b"alive\n"
        lines = [int(line) for line in re.findall(rb"(\d+)\n", bytes(counter.stdout))]
        assert lines == list(range(1, len(lines) + 1))
        assert not pods[kind].failed.is_set()
    for kind, name in names.items():
        await pods[kind].stop()
        assert not pods[kind].stop_errors
        await asyncio.to_thread(world.detach, name)
