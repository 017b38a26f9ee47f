"""What the worker's side refuses before it touches the kernel."""

from ipaddress import ip_address, ip_interface

import pytest

from caa.errors import ConfigError, InvalidInput
from caa.model.ids import SandboxId
from caa.model.network import PodNetwork, Tunnel, Whose
from caa.net.worker import VxlanNetworking
from caa.sandbox.ports import PodNetworking

WHOSE = Whose(sandbox=SandboxId("a" * 64))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"vxlan_port": 0}, "VXLAN_PORT 0"),
        ({"vxlan_port": 70000}, "VXLAN_PORT 70000"),
        ({"vxlan_min_id": 0}, "--vxlan-min-id 0"),
        ({"vxlan_min_id": 1 << 24}, "--vxlan-min-id 16777216"),
    ],
)
def test_bad_settings_are_named(setting, said):
    with pytest.raises(ConfigError, match=said):
        VxlanNetworking(**setting)


async def test_a_peer_of_the_other_family_is_refused():
    networking: PodNetworking = VxlanNetworking()
    network = PodNetwork(interface="eth0", hwaddr="", mtu=1500, addresses=(ip_interface("10.0.0.2/24"),))
    tunnel = Tunnel(kind="vxlan", index=0, vni=1, port=4789, worker=ip_interface("10.0.0.1/24"), mtu=1450)
    with pytest.raises(InvalidInput, match="different IP versions"):
        await networking.connect("/nowhere", network=network, tunnel=tunnel, peer=ip_address("fd00::1"), whose=WHOSE)
