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
