"""`local` keeps the drivers' contract, in a network namespace of its own."""

import shlex
import socket
import sys
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

import providers.local
from caa.config.load import load
from caa.model.network import PodNetwork, Route, Tunnel
from caa.provider.contract import Provider
from caa.testing.provider_contract import Cloud, ProviderContract
from caa.userdata.budget import Budget
from caa.userdata.forwarder import ForwarderConfig, ServerTls
from caa.userdata.render import Parts, render
from caa.wire.certs import NodeAuthority
from providers.local.translate import Site

# An agent that listens and does nothing.
AGENT = """
import socket, time
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/kata-containers/agent.sock")
listening.listen()
time.sleep(1000)
"""
NETWORK = PodNetwork(
    interface="eth0",
    hwaddr="0a:58:0a:32:00:05",
    mtu=1450,
    addresses=(ip_interface("10.50.0.5/24"),),
    routes=(Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.50.0.1"), device="eth0"),),
)
TUNNEL = Tunnel(kind="vxlan", index=0, vni=555000, port=4789, worker=ip_interface("10.199.0.1/24"), mtu=1450)


def user_data(state: Path) -> bytes:
    identity = NodeAuthority.load_or_create(state).server_identity("podvm-web-0a1b2c3d")
    tls = ServerTls(client_ca=identity.client_ca, cert=identity.cert, key=identity.key)
    config = ForwarderConfig(pod_name="web", pod_namespace="default", network=NETWORK, tunnel=TUNNEL, tls=tls)
    return render(Parts(forwarder=config), Budget())


def cgroups(state: Path) -> list[Path]:
    subnet = ip_network("10.199.0.0/24")
    site = Site(state_dir=state, subnet=subnet, bridge="", agent_command=(), python="")
    return list(Path("/sys/fs/cgroup").glob(f"**/{site.cgroup_parent}"))


@pytest.mark.root
class TestLocal(ProviderContract):
    """In the namespace of `own_network`; whatever is left there at the end of a test is seen."""

    @pytest.fixture
    def cloud(self, tmp_path: Path, own_network: None) -> Cloud:
        state = tmp_path / "local"
        agent = shlex.join([sys.executable, "-I", "-S", "-c", AGENT + f"# {state.name}"])

        def made() -> Provider:
            environ = {"LOCAL_STATE_DIR": str(state), "LOCAL_AGENT_COMMAND": agent}
            return providers.local.make(load(providers.local.SETTINGS, environ))

        def nothing_left() -> bool:
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            assert cgroups(state) == []
            assert [*state.glob("vms/*"), *state.glob("addresses/*"), *state.glob("new-*")] == []
            return True

        return Cloud(driver=made(), restarted=made, nothing_left=nothing_left, user_data=user_data(tmp_path))
