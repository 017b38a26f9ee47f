"""The daemon in this process with a driver and a relay that never answer: its socket answers all the same, and fast."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.config.load import Settings, load
from caa.config.node import NODE_ROWS
from caa.model.ids import SandboxId
from caa.model.instance import Instance, Owner
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.node import daemon, parts
from caa.node.system import boot_id
from caa.provider.registry import Driver
from caa.sandbox.store import open_store
from caa.testing.faulty import MemoryCloud
from caa.wire.client import connect
from caa.wire.proto import hypervisor

RECORDS = 200  # as many as a node may have
LIMIT = 0.5  # seconds from `run` to the first answer


class Hanging(MemoryCloud):
    """Every question to this cloud hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        self.asked.set()
        await asyncio.Event().wait()
        return []

    async def delete(self, instance: Any) -> None:
        await asyncio.Event().wait()


class NoNetworking:
    """The kernel is not asked: no firewall rules outside a namespace."""

    def __init__(self, **_: object) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def disconnect(self, *_: object) -> None: ...

    async def standing(self) -> list[Any]:
        return []


def record(number: int) -> Sandbox:
    """Every phase occurs; those that are begun have an instance."""
    phase = list(Phase)[number % len(Phase)]
    name = f"s{number:063}"
    return Sandbox(
        id=SandboxId(name),
        pod=PodSpec(pod_name=f"p{number}", pod_namespace="n", netns=f"/run/netns/{number}"),
        phase=phase,
        instance_name=f"podvm-{number}",
        token="t",
        boot_id=boot_id(),
        created_at=1.0,
        reached="launch" if phase is Phase.STARTING else "",
    )


@pytest.fixture
async def cloud() -> Hanging:
    return Hanging()


@pytest.fixture
async def settings(folder: Path, cloud: Hanging, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(parts, "driver", lambda name: Driver(name=name, settings=(), make=lambda _: cloud))
    monkeypatch.setattr(parts, "VxlanNetworking", NoNetworking)
    store = await open_store(folder / "state" / "node.db")
    for number in range(RECORDS):
        await store.add(record(number))
    await store.add(replace(record(0), id=SandboxId("other"), boot_id="an earlier boot"))
    await store.close()
    environ = {
        "CAA_STATE_DIR": f"{folder}/state",
        "CAA_RUN_DIR": str(folder),
        "PODS_DIR": f"{folder}/pods",
        "PROBE_PORT": "0",
        "NODE_NAME": "n",
        "DRAIN_GRACE": "0",
    }
    return load(NODE_ROWS, environ)


async def answered(folder: Path) -> float:
    """When the socket answers a call for the first time."""
    while True:
        try:
            client = await connect(f"{folder}/node.sock")
        except Exception:
            await asyncio.sleep(0.002)
            continue
        await client.call("hypervisor.Hypervisor/Version", hypervisor.VersionRequest(), timeout=10)
        now = time.perf_counter()
        await client.close()
        return now


async def test_the_socket_answers_before_the_cloud_does(folder: Path, cloud: Hanging, settings: Settings) -> None:
    """Processor time is what is bounded where others use the machine too."""
    began, used = time.perf_counter(), time.process_time()
    running = asyncio.create_task(daemon.run(settings))
    try:
        async with asyncio.timeout(20):
            took, spent = await answered(folder) - began, time.process_time() - used
            await cloud.asked.wait()
        assert min(took, spent) < LIMIT, f"{took:.2f} s, {spent:.2f} s of it on the processor"
    finally:
        os.kill(os.getpid(), 15)
        await asyncio.wait_for(running, 20)
