"""`run` as a process, in a network namespace of its own: it starts, answers, ends on SIGTERM, and keeps its records."""

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caa.sandbox.store import open_store
from caa.wire.client import Client, connect
from caa.wire.proto import hypervisor
from caa.wire.status import RpcError

pytestmark = pytest.mark.root

ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8123/{}', timeout=5).status)"
HYPERVISOR = "hypervisor.Hypervisor"


@dataclass
class Daemon:
    """Processes of one state directory, each in a network and mount namespace of its own."""

    folder: Path
    processes: list[Process] = field(default_factory=list)

    async def spawn(self, **settings: str) -> Process:
        environ = {
            "PATH": os.environ["PATH"],
            "PODS_DIR": f"{self.folder}/pods",
            "CAA_RUN_DIR": str(self.folder),
            "CAA_STATE_DIR": f"{self.folder}/state",
            "LOCAL_STATE_DIR": f"{self.folder}/vms",
            "LOG_FORMAT": "json",
            "PROBE_PORT": "8123",
            "NODE_NAME": "n",
        } | settings
        inside = f"ip link set lo up && exec {sys.executable} -m caa node"
        process = await asyncio.create_subprocess_exec(
            "unshare", "-n", "-m", "sh", "-c", inside, env=environ, stderr=PIPE
        )
        self.processes.append(process)
        return process

    async def client(self) -> Client:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await connect(f"{self.folder}/node.sock")
                except Exception:
                    await asyncio.sleep(0.05)

    async def asked(self, process: Process, path: str) -> str:
        """The status of a health endpoint, asked inside the daemon's namespace."""
        ask = await asyncio.create_subprocess_exec(
            "nsenter", "-t", str(process.pid), "-n", sys.executable, "-c", ASK.format(path), stdout=PIPE
        )
        out, _ = await asyncio.wait_for(ask.communicate(), 20)
        return out.decode().strip()

    async def end(self, process: Process) -> tuple[int, list[dict[str, object]]]:
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(process.communicate(), 15)
        assert process.returncode is not None
        return process.returncode, [json.loads(line) for line in err.decode().splitlines() if line.startswith("{")]


@pytest.fixture
async def daemon(folder: Path) -> AsyncIterator[Daemon]:
    for tool in ("unshare", "nsenter", "ip"):
        assert shutil.which(tool), f"{tool} is missing"
    # There is no relay here to say what runs, so the store says that no record is missing.
    store = await open_store(folder / "state" / "node.db")
    await store.mark_complete()
    await store.close()
    made = Daemon(folder)
    yield made
    for process in made.processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def version(client: Client) -> str:
    answer = await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(), timeout=10)
    return str(answer.version)


async def test_it_serves_and_ends(daemon: Daemon) -> None:
    process = await daemon.spawn()
    client = await daemon.client()
    assert await version(client) == "0.0.0"
    request = hypervisor.CreateVMRequest(id="one", networkNamespacePath="/run/netns/none-of-ours")
    with pytest.raises(RpcError, match="none-of-ours"):
        await client.call(f"{HYPERVISOR}/CreateVM", request, timeout=10)
    assert await daemon.asked(process, "startup") == "200"
    assert await daemon.asked(process, "healthz") == "200"
    await client.close()
    code, lines = await daemon.end(process)
    assert code == 0
    assert {"caa node serves", "caa node ends"} <= {str(line["event"]) for line in lines}
    assert not [line for line in lines if line["level"] == "error"]
    left = await asyncio.to_thread(lambda: sorted(path.name for path in daemon.folder.iterdir()))
    assert "node.sock" not in left
    assert "state" in left


async def test_it_starts_again_on_its_state(daemon: Daemon) -> None:
    for _ in range(2):
        process = await daemon.spawn()
        client = await daemon.client()
        assert await version(client) == "0.0.0"
        await client.close()
        assert (await daemon.end(process))[0] == 0


async def test_a_second_one_on_the_same_state_is_refused(daemon: Daemon) -> None:
    first = await daemon.spawn()
    client = await daemon.client()
    second = await daemon.spawn()
    _, err = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode != 0
    assert b"another caa node" in err
    assert await version(client) == "0.0.0"
    await client.close()
    assert (await daemon.end(first))[0] == 0


async def test_without_the_relays_folder_it_says_what_to_start(daemon: Daemon) -> None:
    process = await daemon.spawn(CAA_RUN_DIR=f"{daemon.folder}/absent")
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode != 0
    assert b"absent: start `caa relay` first, with the same CAA_RUN_DIR" in err


async def test_a_second_one_may_wait_and_take_over(daemon: Daemon) -> None:
    first = await daemon.spawn()
    client = await daemon.client()
    second = await daemon.spawn(TAKEOVER_WAIT="1m")
    await lines_with(daemon, second, "waiting for the other caa node to end")
    assert await version(client) == "0.0.0"
    await client.close()
    assert (await daemon.end(first))[0] == 0
    await lines_with(daemon, second, "caa node serves")
    client = await daemon.client()
    assert await version(client) == "0.0.0"
    await client.close()
    assert (await daemon.end(second))[0] == 0


async def test_one_that_waits_ends_when_it_is_told(daemon: Daemon) -> None:
    first = await daemon.spawn()
    client = await daemon.client()
    second = await daemon.spawn(TAKEOVER_WAIT="1m")
    await lines_with(daemon, second, "waiting for the other caa node to end")
    assert (await daemon.end(second))[0] == 0
    assert await version(client) == "0.0.0"
    await client.close()
    assert (await daemon.end(first))[0] == 0


async def test_recorded_stops_are_acted_on_at_the_start(daemon: Daemon) -> None:
    stops = daemon.folder / "state" / "stops"
    await asyncio.to_thread(stops.mkdir, parents=True)
    await asyncio.to_thread((stops / "of-no-sandbox").touch)
    process = await daemon.spawn()
    client = await daemon.client()
    assert await asyncio.to_thread(lambda: list(stops.iterdir())) == []
    await client.close()
    assert (await daemon.end(process))[0] == 0


async def lines_with(daemon: Daemon, process: Process, event: str) -> dict[str, object]:
    """The next log line with this event."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        async for line in process.stderr:
            if line.startswith(b"{") and (found := json.loads(line))["event"] == event:
                return dict(found)
    raise AssertionError(f"the daemon ended without saying {event!r}")


async def test_settings_change_while_it_runs(daemon: Daemon) -> None:
    folder = daemon.folder / "config"
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / "GC_INTERVAL").write_text, "10m\n")
    process = await daemon.spawn(CAA_CONFIG_DIR=str(folder))
    client = await daemon.client()
    await lines_with(daemon, process, "swept for orphans")
    for key, text in (("GC_INTERVAL", "20m"), ("LOG_LEVEL", "debug"), ("FORWARDER_PORT", "15151")):
        await asyncio.to_thread((folder / key).write_text, text)
    process.send_signal(signal.SIGHUP)
    refused = await lines_with(daemon, process, "changed settings that take effect only at the next start of caa node")
    assert (refused["level"], refused["settings"]) == ("error", ["FORWARDER_PORT (--forwarder-port)"])
    changed = await lines_with(daemon, process, "settings changed")
    assert (changed["gc_interval"], changed["log_level"]) == ("20m", "debug")
    await lines_with(daemon, process, "swept for orphans")  # the new rules are used at once
    await asyncio.to_thread((folder / "GC_INTERVAL").write_text, "often")
    process.send_signal(signal.SIGHUP)
    wrong = await lines_with(daemon, process, "the settings were not read again, those of before stay in effect")
    assert "GC_INTERVAL (--gc-interval): 'often' from the settings directory is not valid" in str(wrong["error"])
    assert await version(client) == "0.0.0"
    await client.close()
    assert (await daemon.end(process))[0] == 0


async def test_a_damaged_store_is_told_and_served(daemon: Daemon) -> None:
    state = daemon.folder / "state"
    await asyncio.to_thread((state / "node.db").write_bytes, b"no database" * 1000)
    process = await daemon.spawn()
    client = await daemon.client()
    told = await lines_with(daemon, process, "the store is damaged and was set aside")
    assert str(told["now"]).startswith(f"{state}/node.db.corrupt-")
    assert await version(client) == "0.0.0"
    await lines_with(daemon, process, "the store is not rebuilt yet, trying again")  # there is no relay
    await client.close()
    assert (await daemon.end(process))[0] == 0


async def test_sweeps_are_switched_on_while_it_runs(daemon: Daemon) -> None:
    folder = daemon.folder / "config"
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / "ENABLE_GC").write_text, "no")
    await asyncio.to_thread((folder / "GC_INTERVAL").write_text, "1s")
    process = await daemon.spawn(CAA_CONFIG_DIR=str(folder))
    await (await daemon.client()).close()
    assert process.stderr is not None
    events: list[str] = []
    async with asyncio.timeout(20):
        async for line in process.stderr:
            events += [json.loads(line)["event"]] if line.startswith(b"{") else []
            if events[-1:] == ["caa node serves"]:
                await asyncio.to_thread((folder / "ENABLE_GC").write_text, "yes")
                process.send_signal(signal.SIGHUP)
            if events[-1:] == ["swept for orphans"]:
                break
    assert "settings changed" in events
    assert (await daemon.end(process))[0] == 0
