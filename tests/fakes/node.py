"""A node over a fake cloud in a process of its own, which is killed in the middle of what it does."""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fakes.world import World

_NODE = """
import asyncio, importlib, json, sys
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.testing.clock import ScaledClock
from tests.fakes.world import OWNER, launch

async def main(package, environ, act):
    driver = importlib.import_module(package)
    values = load((*NODE_ROWS, *driver.SETTINGS), json.loads(environ))
    one = driver.make(values, clock=ScaledClock(5))  # it is killed before it gives up
    if act == "create":
        await one.create(launch())
    else:
        [made] = await one.list_owned(OWNER)
        await one.delete(made.id)

asyncio.run(main(*sys.argv[1:]))
"""


async def killed(world: World, act: str, begun: Callable[[], object], **settings: str) -> None:
    """Let a node `create` or `delete` the pod VM of `launch()`, and kill it when `begun`, in a thread, returns."""
    package, environ = world.driver.__name__, json.dumps(world.environ(**settings))
    command = [sys.executable, "-c", _NODE, package, environ, act]
    node = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])
    try:
        await asyncio.to_thread(begun)
    finally:
        with suppress(ProcessLookupError):
            node.kill()
        assert await node.wait() == -9, "it had ended before it was killed"
