"""Real local pod VMs in a network namespace of the test's own."""

import asyncio
import ctypes
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

import providers.local
from caa.config.load import load
from caa.model.ids import SandboxId
from caa.model.network import PodNetwork, Route, Tunnel
from caa.provider.contract import Instance, LaunchRequest, Owner, Provider
from caa.userdata.budget import Budget
from caa.userdata.forwarder import ForwarderConfig, ServerTls
from caa.userdata.render import Parts, render
from caa.wire.certs import NodeAuthority

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
NAME = "podvm-web-0a1b2c3d"
OWNER = Owner(cluster="c", node="n")
NETWORK = PodNetwork(
    interface="eth0",
    hwaddr="0a:58:0a:32:00:05",
    mtu=1450,
    addresses=(ip_interface("10.50.0.5/24"),),
    routes=(Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.50.0.1"), device="eth0"),),
)
TUNNEL = Tunnel(kind="vxlan", index=0, vni=555000, port=4789, worker=ip_interface("10.199.0.1/24"), mtu=1450)


@pytest.fixture
def own_network() -> Iterator[None]:
    """This thread, and every thread it starts from now on, is in a new and empty network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


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
        identity = self.authority.server_identity(name)
        tls = ServerTls(client_ca=identity.client_ca, cert=identity.cert, key=identity.key)
        config = ForwarderConfig(pod_name="web", pod_namespace="default", network=NETWORK, tunnel=TUNNEL, tls=tls)
        return render(Parts(forwarder=config, initdata=initdata), Budget())

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
