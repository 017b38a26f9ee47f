"""What the SDK costs and where it goes: it is imported late, and only the endpoints that are set are asked."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.gcp.world import World, launch, world

SETTINGS = {"TAGS": "team=blue", "USE_PUBLIC_IP": "true"}
IMPORTS = """
import asyncio, json, sys
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.instance import Owner
from caa.provider.registry import driver

def heavy():
    return sorted(one for one in ("google.cloud.compute_v1", "google.auth", "requests", "grpc") if one in sys.modules)

async def main():
    found = driver("gcp")
    told = [heavy()]
    one = found.make(load((*NODE_ROWS, *found.settings), json.loads(sys.argv[1])))
    told.append(heavy())
    await one.list_owned(Owner(cluster="c1", node="n1"))
    told.append(heavy())
    await one.close()
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_the_first_look_for_instances_imports_it_and_not_the_first_pod(gcp: World) -> None:
    """Neither does the module of the driver nor its factory, before which no socket answers."""
    command = [sys.executable, "-c", IMPORTS, json.dumps(gcp.environ())]
    run = await _run(command)
    before, made, looked = json.loads(run)
    assert before == made == []
    assert "google.cloud.compute_v1" in looked


async def test_nobody_is_asked_but_the_endpoints_that_are_set(gcp: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """providers.md 6.3: the SDK's own wait for an operation goes to Google whatever the endpoint is."""
    hosts: set[str] = set()
    original = socket.getaddrinfo

    def noted(host: Any, *others: Any, **more: Any) -> Any:
        hosts.add(str(host))
        return original(host, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    one = gcp.make(**SETTINGS)
    await one.check()
    made = await one.create(launch())
    await one.console(made.id)
    await one.delete(made.id)
    await one.close()
    assert "zoneOperations.wait" in gcp.wire.calls()
    assert hosts == {"127.0.0.1"}


async def test_connections_are_kept_however_many_calls_are_under_way(
    gcp: World, caplog: pytest.LogCaptureFixture
) -> None:
    """`requests` keeps ten of a host and throws the others away, with a warning each."""
    gcp.google.faults.latency, gcp.cloud.delays.making = 0.1, 0.5
    gcp.waits = replace(gcp.waits, read_timeout=20.0, long_poll=20.0, running=3000, address=3000, gone=9000, undo=3000)
    one = gcp.make(CLOUD_CALLS_PER_SECOND="900", CLOUD_CREATES_AT_ONCE="60")
    made = await asyncio.gather(*(one.create(launch(f"podvm-web-{number:08x}")) for number in range(60)))
    await asyncio.gather(*(one.delete(instance.id) for instance in made))
    assert "pool is full" not in caplog.text
    await one.close()


async def _run(command: list[str]) -> str:
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout
