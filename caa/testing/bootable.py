"""For drivers that really boot: user data that a pod VM starts with, and a network of the test's own."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from caa.model.network import PodNetwork, Route, Tunnel
from caa.testing import spaces
from caa.userdata.budget import Budget
from caa.userdata.forwarder import ForwarderConfig, ServerTls
from caa.userdata.render import Parts, render
from caa.wire.certs import NodeAuthority

_NETWORK = PodNetwork(
    interface="eth0",
    hwaddr="0a:58:0a:32:00:05",
    mtu=1450,
    addresses=(ip_interface("10.50.0.5/24"),),
    routes=(Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.50.0.1"), device="eth0"),),
)
_TUNNEL = Tunnel(kind="vxlan", index=0, vni=555000, port=4789, worker=ip_interface("10.199.0.1/24"), mtu=1450)


def user_data(authority: NodeAuthority, name: str, *, initdata: str = "") -> bytes:
    """The document that a node would send for the pod VM called `name`: apf.json with one address, route and tunnel."""
    identity = authority.server_identity(name)
    tls = ServerTls(client_ca=identity.client_ca, cert=identity.cert, key=identity.key)
    config = ForwarderConfig(pod_name="web", pod_namespace="default", network=_NETWORK, tunnel=_TUNNEL, tls=tls)
    return render(Parts(forwarder=config, initdata=initdata), Budget())


@pytest.fixture
def own_network() -> Iterator[None]:
    """This thread, and every thread it starts from now on, is in a new and empty network namespace. Needs root."""
    with spaces.own("net"):
        yield
