"""Real local pod VMs in a network namespace of the test's own."""

import asyncio
import shlex
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import providers.local
from caa.config.load import load
from caa.model.ids import SandboxId
from caa.provider.contract import Instance, LaunchRequest, Owner, Provider
from caa.testing.bootable import own_network, user_data
from caa.wire.certs import NodeAuthority

__all__ = ["Lab", "lab", "own_network"]
NAME = "podvm-web-0a1b2c3d"
OWNER = Owner(cluster="c", node="n")


@dataclass
class Lab:
    """A state directory, certificates, and pod VMs whose agent is a program text."""

    folder: Path
    authority: NodeAuthority

    def driver(self, agent: str = "") -> Provider:
        """The driver; `agent` is the text of a Python program, "" for the stand-in agent."""
        environ = {"LOCAL_STATE_DIR": str(self.folder / "local")}
        if agent:
            environ["LOCAL_AGENT_COMMAND"] = shlex.join([sys.executable, "-I", "-c", agent])
        return providers.local.make(load(providers.local.SETTINGS, environ))

    def request(self, name: str = NAME, user_data: bytes | None = None, initdata: str = "") -> LaunchRequest:
        """A launch request with user data that boots."""
        return LaunchRequest(
            name=name,
            sandbox=SandboxId("sandbox"),
            owner=OWNER,
            token="t",
            user_data=self.user_data(name, initdata) if user_data is None else user_data,
        )

    def user_data(self, name: str, initdata: str = "") -> bytes:
        """The document that a node would send."""
        return user_data(self.authority, name, initdata=initdata)

    async def console(self, driver: Provider, instance: Instance, until: str) -> str:
        """The console once it holds `until`; fails after 10 s."""
        end = time.monotonic() + 10
        while until not in (console := (await driver.console(instance.id)).decode()):
            assert time.monotonic() < end, f"no {until!r} after 10 s on the console:\n{console}"
            await asyncio.sleep(0.005)
        return console


@pytest.fixture
async def lab(tmp_path: Path, own_network: None) -> AsyncIterator[Lab]:
    """A lab; every pod VM in it is gone afterwards."""
    made = Lab(tmp_path, NodeAuthority.load_or_create(tmp_path))
    yield made
    driver = made.driver()
    for instance in await driver.list_owned(OWNER):
        await driver.delete(instance.id)
