"""The recorded conversations of both Kata shims, from CreateVM to StopVM, with a real VM at the other end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from caa.testing import likeness, traces
from caa.testing.replay import RawClient, Replay
from caa.testing.traces import Frame, Side
from caa.wire.proto import hypervisor

TRACES = Path(__file__).resolve().parents[2] / "data" / "traces"

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.needs("runc", "nft", "ip", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq"),
]


async def _played(worker: Any, name: str, number: int) -> Replay:
    """The recording on our sockets; only the pod's network namespace is another one."""
    options = await worker.options(number)
    recording = traces.read(TRACES / f"{name}.jsonl")
    (created,) = [one for one in traces.frames(recording, "hypervisor") if one.to_agent and one.method == "CreateVM"]
    sandbox = hypervisor.CreateVMRequest.FromString(created.payload).id
    paths = {"hypervisor": worker.paths.hypervisor, "agent": worker.paths.pods / sandbox / "agent.ttrpc"}

    async def connect(side: Side) -> RawClient:
        return RawClient(*await asyncio.open_unix_connection(str(paths[side])))

    def edit(frame: Frame) -> bytes | None:
        if frame.method != "CreateVM":
            return None
        request = hypervisor.CreateVMRequest.FromString(frame.payload)
        request.networkNamespacePath = options.netns
        return request.SerializeToString()

    replay = Replay.whole(recording, connect, edit=edit, patience=120)
    await replay.run()
    return replay


async def test_both_shims_at_once(worker: Any) -> None:
    """A pod each: sandbox, containers, execs, statistics, health, the end; answered as the real agent answered."""
    replays = await asyncio.gather(_played(worker, "normal", 0), _played(worker, "normal-rs", 1))
    for replay in replays:
        likeness.assert_as_recorded(replay.played)
        calls = [one.request.method for one in replay.played.outcomes]
        assert calls[:2] == ["CreateVM", "StartVM"]
        assert calls[-1] == "StopVM"
        assert calls.count("ExecProcess") == 2
        await replay.close()
    await worker.until(lambda: worker.log().count("sandbox removed") == 2, "the end of both")
