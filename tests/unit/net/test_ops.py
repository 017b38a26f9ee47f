"""Operations: the sentence each one completes, and what undoes it."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import get_args

import pytest

from caa.model.network import Neighbour, Route
from caa.net.ops import (
    AddAddress,
    AddIngress,
    AddNeighbour,
    AddRoute,
    AddVxlan,
    ChangeLink,
    ClearRedirect,
    DeleteIngress,
    DeleteLink,
    NoLinkLocal,
    Op,
    Redirect,
    Side,
)

POD = Side.POD
MAC = "02:00:00:00:00:01"
PEER, WORKER = ip_address("10.0.0.2"), ip_address("10.0.0.1")
VXLAN = AddVxlan(device="vxlan1", vni=555000, port=4789, local=WORKER, remote=PEER, mtu=1450)
ROUTE = Route(destination=ip_network("10.1.0.0/16"), gateway=ip_address("10.0.0.1"), device="eth0", onlink=True)
PLAIN = Route(destination=ip_network("::/0"), device="eth0", table=7)
NEIGHBOUR = Neighbour(address=PEER, lladdr=MAC, device="eth0")
SAID: list[tuple[Op, str]] = [
    (VXLAN, "make the tunnel vxlan1 (VXLAN id 555000, 10.0.0.1 to 10.0.0.2 port 4789, MTU 1450)"),
    (DeleteLink(side=POD, device="vxlan1"), "delete the link vxlan1"),
    (ChangeLink(side=POD, device="eth0", up=True, mtu=1400), "set the link eth0 up, MTU 1400"),
    (ChangeLink(side=POD, device="eth0", up=False, hwaddr=MAC), f"set the link eth0 down, {MAC}"),
    (ChangeLink(side=POD, device="eth0", mtu=0), "set the link eth0 MTU 0"),
    (NoLinkLocal(side=POD, device="vxlan1"), "switch off automatic IPv6 addresses on vxlan1"),
    (AddAddress(side=POD, device="eth0", address=ip_interface("fd00::5/64")), "add the address fd00::5/64 to eth0"),
    (AddRoute(side=POD, route=ROUTE), "add the route 10.1.0.0/16 via 10.0.0.1 dev eth0 onlink table 254"),
    (AddRoute(side=POD, route=PLAIN), "add the route ::/0 dev eth0 table 7"),
    (AddNeighbour(side=POD, neighbour=NEIGHBOUR), f"add the neighbour 10.0.0.2 lladdr {MAC} dev eth0"),
    (AddIngress(side=POD, device="eth0"), "add the ingress qdisc to eth0"),
    (DeleteIngress(side=POD, device="eth0"), "delete the ingress qdisc of eth0"),
    (Redirect(side=POD, device="eth0", target="vxlan1"), "redirect eth0 to vxlan1"),
    (ClearRedirect(side=POD, device="eth0"), "remove the redirect of eth0"),
]  # fmt: skip
UNDONE = {
    VXLAN: DeleteLink(side=POD, device="vxlan1"),
    AddIngress(side=Side.HOST, device="eth0"): DeleteIngress(side=Side.HOST, device="eth0"),
    Redirect(side=Side.HOST, device="eth0", target="vxlan1"): ClearRedirect(side=Side.HOST, device="eth0"),
}


@pytest.mark.parametrize(("op", "said"), SAID)
def test_the_sentence_after_the_kernel_refused_to(op: Op, said: str) -> None:
    assert str(op) == said


@pytest.mark.parametrize(("op", "undo"), UNDONE.items())
def test_what_is_made_is_undone_on_the_side_and_device_where_it_is(op: Op, undo: Op) -> None:
    assert op.undo() == undo
    assert undo.undo() is None


def test_everything_else_goes_with_its_link() -> None:
    made = {type(op) for op in UNDONE}
    assert {type(op) for op, _ in SAID} == set(get_args(Op))
    assert [op for op, _ in SAID if type(op) not in made and op.undo() is not None] == []
