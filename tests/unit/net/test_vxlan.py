"""The two halves as plans."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput, NetworkError
from caa.model.network import Neighbour, PodNetwork, Route
from caa.net import ops, vxlan
from caa.net.inspect import Underlay
from caa.net.messages import Link, Vxlan
from caa.net.ops import Side
from caa.net.vxlan import Present

HOST = Underlay(interface="ens5", address=ip_interface("192.168.77.1/24"), mtu=1500)
VM = Underlay(interface="ens1", address=ip_interface("192.168.77.2/24"), mtu=1500)
PEER = ip_address("192.168.77.2")
POD = PodNetwork(
    interface="eth0",
    hwaddr="02:00:00:00:00:0a",
    mtu=1500,
    addresses=(ip_interface("10.88.0.10/24"), ip_interface("fd88::10/64")),
    routes=(
        Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.88.0.1"), device="eth0"),
        Route(destination=ip_network("10.88.0.0/24"), scope=253, device="eth0", protocol=2),
    ),
    neighbours=(Neighbour(address=ip_address("169.254.1.1"), lladdr="02:00:00:00:00:99", device="eth0"),),
)
TUNNEL = vxlan.tunnel(3, POD, underlay=HOST, port=4789, min_id=555000)
EMPTY = Present(redirects={})
WORKER_LINK = Link(
    index=9,
    name="vxlan1",
    kind="vxlan",
    vxlan=Vxlan(vni=555003, port=4789, local=ip_address("192.168.77.1"), remote=PEER),
)
STANDING = Present(links=(WORKER_LINK,), redirects={"eth0": "vxlan1", "vxlan1": "eth0"})


def worker(present: Present, **more):
    return vxlan.worker_plan(POD, TUNNEL, peer=more.get("peer", PEER), present=present)


def kinds(plan) -> list[str]:
    return [type(op).__name__ for op in plan]


def test_the_tunnel():
    assert (TUNNEL.kind, TUNNEL.index, TUNNEL.vni, TUNNEL.port, TUNNEL.mtu) == ("vxlan", 3, 555003, 4789, 1450)
    assert TUNNEL.worker == HOST.address


@given(st.integers(1350, 65535), st.integers(1280, 65535), st.sampled_from(["10.0.0.1/24", "fd00::1/64"]))
def test_mtu_is_the_smaller_one(underlay, pod, address):
    host = Underlay(interface="ens5", address=ip_interface(address), mtu=underlay)
    made = vxlan.tunnel(0, replace(POD, mtu=pod), underlay=host, port=4789, min_id=1)
    assert made.mtu == min(underlay - (50 if host.address.version == 4 else 70), pod)


def test_ids_and_ipv6_have_bounds():
    with pytest.raises(NetworkError, match="16777216 is not between"):
        vxlan.tunnel(1, POD, underlay=HOST, port=4789, min_id=vxlan.MAX_ID)
    small = replace(HOST, mtu=1300)
    with pytest.raises(NetworkError, match="leaves 1250 inside the tunnel, IPv6 needs 1280"):
        vxlan.tunnel(1, POD, underlay=small, port=4789, min_id=1)
    only4 = replace(POD, addresses=POD.addresses[:1])
    assert vxlan.tunnel(1, only4, underlay=small, port=4789, min_id=1).mtu == 1250


def test_worker_half_from_nothing():
    plan = worker(EMPTY)
    assert kinds(plan) == [
        "AddVxlan",
        "NoLinkLocal",
        "ChangeLink",
        "AddIngress",
        "Redirect",
        "AddIngress",
        "Redirect",
    ]
    assert plan[0] == ops.AddVxlan(
        device="vxlan1",
        vni=555003,
        port=4789,
        local=ip_address("192.168.77.1"),
        remote=PEER,
        mtu=1450,
    )
    assert plan[4] == ops.Redirect(side=Side.POD, device="vxlan1", target="eth0")
    assert plan[6] == ops.Redirect(side=Side.POD, device="eth0", target="vxlan1")


def test_worker_half_that_stands_is_kept():
    assert kinds(worker(STANDING)) == ["ChangeLink"]


def test_worker_half_towards_another_vm_is_replaced():
    plan = worker(STANDING, peer=ip_address("192.168.77.9"))
    assert kinds(plan)[:2] == ["DeleteLink", "AddVxlan"]
    assert ops.ClearRedirect(side=Side.POD, device="eth0") in plan
    assert ops.ClearRedirect(side=Side.POD, device="vxlan1") not in plan  # it went with the link


def test_the_tunnel_of_another_sandbox_is_not_taken_over():
    other = replace(WORKER_LINK, vxlan=replace(WORKER_LINK.vxlan, vni=555009))
    with pytest.raises(NetworkError, match="tunnel 555009 of another sandbox"):
        worker(replace(STANDING, links=(other,)))


def test_a_redirect_into_a_vanished_link_is_cleared():
    plan = worker(Present(redirects={"eth0": ""}))
    assert kinds(plan)[-3:] == ["ClearRedirect", "AddIngress", "Redirect"]


def test_a_foreign_interface_of_our_name_stays():
    foreign = Present(links=(Link(index=9, name="vxlan1", kind="veth"),), redirects={})
    with pytest.raises(NetworkError, match="already has an interface vxlan1"):
        worker(foreign)


def test_removal_is_the_redirect_first():
    plan = vxlan.worker_removal(TUNNEL, STANDING)
    assert plan == [
        ops.ClearRedirect(side=Side.POD, device="eth0"),
        ops.DeleteIngress(side=Side.POD, device="eth0"),
        ops.DeleteLink(side=Side.POD, device="vxlan1"),
    ]


def test_removal_of_nothing_and_of_others():
    assert vxlan.worker_removal(TUNNEL, EMPTY) == []
    assert vxlan.worker_removal(replace(TUNNEL, vni=1), STANDING) == []
    foreign = Present(links=(Link(index=4, name="ifb0"),), redirects={"eth0": "ifb0"})
    assert vxlan.worker_removal(TUNNEL, foreign) == []
    assert kinds(vxlan.worker_removal(TUNNEL, Present(redirects={"eth0": ""}))) == ["ClearRedirect", "DeleteIngress"]


def guest(present: Present = EMPTY, *, network=POD, tunnel=TUNNEL, underlay=VM):
    return vxlan.guest_plan(network, tunnel, underlay=underlay, present=present)


def test_guest_half_from_nothing():
    plan = guest()
    assert kinds(plan) == ["AddVxlan", "ChangeLink", "AddAddress", "AddAddress", "AddRoute", "AddRoute", "AddNeighbour"]
    made = plan[0]
    assert isinstance(made, ops.AddVxlan)
    assert (made.device, made.hwaddr, made.mtu) == ("eth0", POD.hwaddr, 1450)
    assert (str(made.local), str(made.remote)) == ("192.168.77.2", "192.168.77.1")
    routes = [op.route for op in plan if isinstance(op, ops.AddRoute)]
    assert [str(route.destination) for route in routes] == ["10.88.0.0/24", "0.0.0.0/0"]


def test_guest_half_that_stands_is_kept():
    first = guest()[0]
    assert isinstance(first, ops.AddVxlan)
    link = Link(
        index=2,
        name="eth0",
        kind="vxlan",
        vxlan=Vxlan(vni=first.vni, port=first.port, local=first.local, remote=first.remote),
    )
    assert kinds(guest(Present(links=(link,), redirects={})))[0] == "ChangeLink"
    older = replace(link, vxlan=Vxlan(vni=1, port=first.port, local=first.local, remote=first.remote))
    assert kinds(guest(Present(links=(older,), redirects={})))[:2] == ["DeleteLink", "AddVxlan"]


def test_the_reference_adaptors_mtu_is_clamped():
    made = guest(tunnel=replace(TUNNEL, mtu=9001))[0]
    assert isinstance(made, ops.AddVxlan)
    assert made.mtu == 1450


def test_an_ipv4_pod_sends_nothing_by_ipv6():
    only4 = replace(POD, addresses=POD.addresses[:1])
    assert ops.NoLinkLocal(side=Side.POD, device="eth0") in guest(network=only4)


def test_a_hostile_interface_name_is_refused():
    with pytest.raises(InvalidInput, match="not an interface name"):
        guest(network=replace(POD, interface="../x"))


def test_guest_removal():
    link = Link(index=2, name="eth0", kind="vxlan", vxlan=Vxlan(vni=555003, port=4789, local=None, remote=PEER))
    there = Present(links=(link,), redirects={})
    assert vxlan.guest_removal(POD, TUNNEL, present=there) == [ops.DeleteLink(side=Side.POD, device="eth0")]
    assert vxlan.guest_removal(POD, replace(TUNNEL, vni=9), present=there) == []
    assert vxlan.guest_removal(POD, TUNNEL, present=EMPTY) == []


def test_both_ends_speak_one_family():
    with pytest.raises(InvalidInput, match="different IP versions"):
        worker(EMPTY, peer=ip_address("fd00::1"))


@pytest.mark.parametrize(
    ("gateway", "direct", "onlink"),
    [
        ("10.0.0.1", [("10.0.0.0/24", 253)], False),
        ("169.254.1.1", [("10.0.0.0/24", 253)], True),
        ("169.254.1.1", [("169.254.1.1/32", 253)], False),  # calico, azure
        ("10.0.0.1", [("10.0.0.0/24", 0)], True),  # the kernel looks for gateways in scope link only
        ("fe80::1", [], False),
        ("fd00::1", [("fd00::/64", 0)], False),
        ("fd00::1", [], True),
    ],
)
def test_onlink_where_no_route_reaches_the_gateway(gateway, direct, onlink):
    via = ip_address(gateway)
    default = Route(destination=ip_network("0.0.0.0/0" if via.version == 4 else "::/0"), gateway=via, device="cni-name")
    ways = [Route(destination=ip_network(to), scope=scope) for to, scope in direct]
    made = vxlan.guest_routes([default, *ways], "eth0")
    assert made[-1] == replace(default, onlink=onlink, device="eth0")
    assert all(route.device == "eth0" for route in made)


def test_every_operation_completes_the_sentence():
    for op in [*worker(STANDING, peer=ip_address("192.168.77.9")), *guest(), *vxlan.worker_removal(TUNNEL, STANDING)]:
        assert str(op)[0].islower()
        assert "(" not in str(op).split(" ", 1)[0]
