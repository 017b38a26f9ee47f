"""rtnetlink message bodies: fixed bytes, and what we encode is what we decode."""

import struct
import sys
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.model.network import Neighbour, Route
from caa.net import codec
from caa.net import messages as m

little = pytest.mark.skipif(sys.byteorder != "little", reason="the fixed bytes are little-endian")

v4 = st.ip_addresses(v=4).filter(lambda a: int(a) != 0)
v6 = st.ip_addresses(v=6).filter(lambda a: int(a) != 0)


@little
def test_new_vxlan_bytes():
    vxlan = m.Vxlan(vni=555000, port=4789, local=ip_address("192.168.77.1"), remote=ip_address("192.168.77.2"))
    body = m.new_vxlan("vxlan1", vxlan, netns=9, mtu=1450)
    assert body == bytes.fromhex(
        "00000000 00000000 00000000 00000000"  # ifinfomsg
        "0b00 0300 76786c616e310000"  # IFLA_IFNAME vxlan1
        "0800 0400 aa050000"  # IFLA_MTU
        "0800 1c00 09000000"  # IFLA_NET_NS_FD
        "3c00 1200"  # IFLA_LINKINFO
        "0a00 0100 76786c616e000000"  # IFLA_INFO_KIND
        "2c00 0200"  # IFLA_INFO_DATA
        "0800 0100 f8770800"  # id
        "0800 0200 c0a84d02"  # group
        "0800 0400 c0a84d01"  # local
        "0500 0700 00000000"  # learning off
        "0600 0f00 12b50000"  # port, network byte order
    )


def test_a_vxlan_link_is_read_back():
    for local, remote in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        vxlan = m.Vxlan(vni=77, port=4790, local=ip_address(local), remote=ip_address(remote))
        link = m.read_link(m.new_vxlan("eth0", vxlan, netns=5, mtu=1400, hwaddr="02:00:00:00:00:0a"))
        assert link == m.Link(
            index=0, name="eth0", kind="vxlan", mtu=1400, hwaddr="02:00:00:00:00:0a", up=False, vxlan=vxlan
        )


def test_link_changes():
    up = m.read_link(m.link_change(7, up=True, mtu=1450, hwaddr="02:00:00:00:00:01"))
    assert (up.index, up.up, up.mtu, up.hwaddr) == (7, True, 1450, "02:00:00:00:00:01")
    flags, mask = struct.unpack_from("=II", m.link_change(7, up=False), 8)
    assert (flags, mask) == (0, 1)
    assert struct.unpack_from("=II", m.link_change(7, mtu=9), 8) == (0, 0)


@given(st.one_of(v4, v6), st.integers(0, 128), st.integers(1, 2**31 - 1))
def test_address_round_trip(address, prefix, index):
    interface = ip_interface((address, min(prefix, address.max_prefixlen)))
    assert m.read_address(m.address(index, interface)) == m.Address(index=index, interface=interface)


def test_address_flags_and_point_to_point():
    body = struct.pack("=BBBBi", 2, 32, 0x80, 0, 4)
    body += codec.attribute(1, ip_address("10.0.0.9").packed) + codec.attribute(2, ip_address("10.0.0.1").packed)
    assert m.read_address(body).interface == ip_interface("10.0.0.1/32")
    assert m.read_address(body).usable
    assert not m.read_address(body + codec.u32(8, 0x20)).usable  # deprecated
    made = codec.attributes(m.address(1, ip_interface("10.0.0.1/8"))[8:])
    assert codec.number(made[8]) == m.IFA_F_NODAD | m.IFA_F_NOPREFIXROUTE
    made = codec.attributes(m.address(1, ip_interface("10.0.0.1/8"), prefix_route=True)[8:])
    assert codec.number(made[8]) == m.IFA_F_NODAD


@st.composite
def routes(draw):
    own, other = draw(st.sampled_from([(v4, v6), (v6, v4)]))
    to = draw(own)
    return Route(
        destination=ip_network((to, draw(st.integers(0, to.max_prefixlen))), strict=False),
        gateway=draw(st.one_of(st.none(), own, other)),
        source=draw(st.one_of(st.none(), own)),
        protocol=draw(st.integers(0, 255)),
        scope=draw(st.integers(0, 255)),
        table=draw(st.integers(1, 2**32 - 1)),
        metric=draw(st.integers(0, 2**32 - 1)),
        onlink=draw(st.booleans()),
    )


@given(routes())
def test_route_round_trip(route):
    assert m.read_route(m.route(3, route)) == m.RouteRow(index=3, kind=m.RTN_UNICAST, route=route)


def test_first_hop_of_a_multipath_route():
    hop = codec.attribute(5, ip_address("10.0.0.1").packed)
    hops = b"".join(struct.pack("=HBBi", 8 + len(hop), 4, 0, index) + hop for index in (6, 7))
    body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + codec.attribute(9, hops)
    row = m.read_route(body)
    assert row is not None
    assert (row.index, row.route.gateway, row.route.onlink) == (6, ip_address("10.0.0.1"), True)
    assert row.route.destination == ip_network("0.0.0.0/0")


def test_other_families_are_no_routes():
    assert m.read_route(struct.pack("=BBBBBBBBI", 28, 0, 0, 0, 254, 3, 0, 1, 0)) is None


@given(st.one_of(v4, v6), st.binary(min_size=6, max_size=6), st.integers(0, 0xFFFF))
def test_neighbour_round_trip(address, mac, state):
    wanted = Neighbour(address=address, lladdr=mac.hex(":"), state=state)
    assert m.read_neighbour(m.neighbour(4, wanted)) == m.NeighbourRow(index=4, neighbour=wanted)


def test_neighbours_without_hardware_address_are_left_out():
    body = struct.pack("=BxxxiHBB", 2, 4, 0x20, 0, 0) + codec.attribute(1, ip_address("10.0.0.1").packed)
    assert m.read_neighbour(body) is None


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "a b", "..", "a\0b", "ü" * 8, "a:b"])
def test_bad_interface_names(name):
    with pytest.raises(InvalidInput, match="not an interface name"):
        m.checked_name(name)


def test_bad_hardware_address():
    with pytest.raises(InvalidInput, match="not a hardware address"):
        m.packed_mac("02:00:zz")
