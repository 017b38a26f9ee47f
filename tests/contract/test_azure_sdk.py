"""When `azure` pays for its SDK: not before the first call, and then beside the loop that serves the node's sockets."""

import asyncio
import json
import sys
from pathlib import Path

from tests.fakes.azure.world import world

NODE = """
import asyncio, json, sys, threading
import providers.azure
from caa.config.load import load
from caa.config.node import NODE_ROWS
from tests.fakes.world import OWNER

threads = {}

class Watch:
    def find_spec(self, name, path=None, target=None):
        threads.setdefault(name, threading.current_thread() is threading.main_thread())

async def main():
    driver = providers.azure.make(load((*NODE_ROWS, *providers.azure.SETTINGS), json.loads(sys.argv[1])))
    early = [name for name in sys.modules if name.partition(".")[0] in ("azure", "msal", "aiohttp")]
    sys.meta_path.insert(0, Watch())
    assert await driver.list_owned(OWNER) == []
    await driver.close()
    names = ("azure.mgmt.compute.aio", "azure.mgmt.network.aio", "azure.identity.aio")
    heavy = {name: threads.get(name) for name in names}
    print(json.dumps({"early": early, "on the loop's thread": heavy}))

asyncio.run(main())
"""


async def test_the_sdk_is_imported_with_the_first_call_and_beside_the_loop(tmp_path: Path) -> None:
    async with world(tmp_path) as azure:
        node = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            NODE,
            json.dumps(azure.environ()),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await asyncio.wait_for(node.communicate(), 60)
    found = json.loads(told)
    assert found["early"] == []
    assert set(found["on the loop's thread"].values()) == {False}
