"""The demo looks after its daemons: one that is killed from outside ends it at once, and says so."""

import asyncio
import sys
from pathlib import Path

import pytest

from caa.errors import Unavailable
from caa.testing.demo.daemons import Daemons, Paths


async def sleeper() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")


async def test_a_daemon_that_is_killed_from_outside_ends_the_demo(tmp_path: Path) -> None:
    daemons = Daemons(Paths(tmp_path), "local", {})
    daemons.running["node"] = await sleeper()
    ended = asyncio.Event()

    async def pods() -> None:
        try:
            daemons.running["node"].kill()
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(Unavailable, match="caa node ended in mid-run"):
        await asyncio.wait_for(daemons.unharmed(pods()), 10)
    assert ended.is_set()


async def test_one_that_the_demo_kills_itself_is_no_harm(tmp_path: Path) -> None:
    daemons = Daemons(Paths(tmp_path), "local", {})
    daemons.running["node"] = await sleeper()

    async def pods() -> str:
        await daemons.kill("node")
        await asyncio.sleep(0.3)
        return "done"

    assert await asyncio.wait_for(daemons.unharmed(pods()), 10) == "done"


async def test_what_a_pod_raises_comes_as_it_is(tmp_path: Path) -> None:
    async def pods() -> None:
        raise LookupError("no such container")

    with pytest.raises(LookupError, match="no such container"):
        await Daemons(Paths(tmp_path), "local", {}).unharmed(pods())


@pytest.mark.parametrize("kept", [True, False])
async def test_a_cancellation_is_the_pods_own_to_take_or_to_pass_on(tmp_path: Path, kept: bool) -> None:
    """A kept pod takes Ctrl-C for its end, and the demo goes on to its verdict; any other is interrupted."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def pods() -> str:
        try:
            begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not kept:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        finally:
            await asyncio.sleep(0.01)  # the pods' removal
            ended.set()
        return "done"

    demo = asyncio.create_task(Daemons(Paths(tmp_path), "local", {}).unharmed(pods()))
    await begun.wait()
    demo.cancel()
    (result,) = await asyncio.gather(demo, return_exceptions=True)
    assert ended.is_set()
    assert result == "done" if kept else isinstance(result, asyncio.CancelledError)
    assert demo.cancelling() == (0 if kept else 1)
