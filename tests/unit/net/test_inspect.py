"""What is read out of a namespace: networks as several CNI plugins leave them."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from caa.errors import ConfigError, InvalidInput, NetworkError
from caa.model.network import Neighbour, Route
from caa.net import inspect
from caa.net.messages import Address, Link, NeighbourRow, RouteRow

LO = Link(index=1, name="lo", mtu=65536, up=True, loopback=True)
ETH0 = Link(index=2, name="eth0", kind="veth", mtu=1500, hwaddr="02:00:00:00:00:02", up=True)
NET1 = Link(index=3, name="net1", kind="veth", mtu=9000, hwaddr="02:00:00:00:00:03", up=True)


def at(index: int, text: str, **more) -> Address:
    return Address(index=index, interface=ip_interface(text), **more)


def way(index: int, to: str, via: str | None = None, *, kind: int = 1, **more) -> RouteRow:
    route = Route(destination=ip_network(to), gateway=ip_address(via) if via else None, **more)
    return RouteRow(index=index, kind=kind, route=route)


def next_to(index: int, address: str, **more) -> NeighbourRow:
    entry = Neighbour(address=ip_address(address), lladdr="02:00:00:00:00:99", **more)
    return NeighbourRow(index=index, neighbour=entry)


def seen(*links: Link, addresses=(), routes=(), neighbours=()) -> inspect.Snapshot:
    return inspect.Snapshot(
        links=(LO, *links), addresses=tuple(addresses), routes=tuple(routes), neighbours=tuple(neighbours)
    )


def test_a_dual_stack_pod():
    network = inspect.pod_network(
        seen(
            ETH0,
            addresses=[
                at(1, "127.0.0.1/8"),
                at(2, "10.88.0.10/24"),
                at(2, "fd88::10/64"),
                at(2, "fe80::1/64"),
                at(2, "fd88::abcd/64", usable=False),
            ],
            routes=[
                way(2, "0.0.0.0/0", "10.88.0.1"),
                way(2, "10.88.0.0/24", scope=253, source=ip_address("10.88.0.10"), protocol=2),
                way(2, "10.88.0.10/32", table=255, kind=2),
                way(2, "10.88.0.255/32", table=255, kind=3),
                way(2, "fd88::/64", metric=256),
                way(2, "fe80::/64", metric=256),
                way(2, "ff00::/8", table=255, kind=5),
                way(2, "10.77.0.0/16", "10.88.0.1", table=100, onlink=True),
                way(0, "10.66.0.0/16", kind=6),
                way(3, "10.55.0.0/16"),
            ],
            neighbours=[
                NeighbourRow(
                    index=2, neighbour=Neighbour(address=ip_address("169.254.1.1"), lladdr="02:00:00:00:00:99")
                ),
                NeighbourRow(index=2, neighbour=Neighbour(address=ip_address("10.88.0.1"), lladdr="02::1", state=2)),
                NeighbourRow(index=3, neighbour=Neighbour(address=ip_address("10.88.0.1"), lladdr="02::1")),
            ],
        )
    )
    assert (network.interface, network.hwaddr, network.mtu) == ("eth0", "02:00:00:00:00:02", 1500)
    assert [str(address) for address in network.addresses] == ["10.88.0.10/24", "fd88::10/64"]
    assert [str(route.destination) for route in network.routes] == [
        "0.0.0.0/0",
        "10.88.0.0/24",
        "fd88::/64",
        "10.77.0.0/16",
    ]
    assert {route.device for route in network.routes} == {"eth0"}
    assert network.routes[1].source == ip_address("10.88.0.10")
    assert (network.routes[3].table, network.routes[3].onlink) == (100, True)
    assert [str(entry.address) for entry in network.neighbours] == ["169.254.1.1"]
    assert network.neighbours[0].device == "eth0"


@pytest.mark.parametrize(
    ("links", "defaults", "want"),
    [
        ([ETH0, NET1], [3], "net1"),  # the default route decides
        ([ETH0, NET1], [3, 2], "eth0"),  # several: eth0
        ([ETH0, NET1], [], "eth0"),
        ([NET1], [], "net1"),  # the only one
        ([Link(index=4, name="a", up=True), NET1], [3, 4], "net1"),  # several, no eth0: the lowest metric
        ([Link(index=4, name="tunl0"), NET1], [], "net1"),  # a fallback device that is down
        ([Link(index=4, name="vxlan1", kind="vxlan", up=True), ETH0], [], "eth0"),
    ],
)
def test_which_interface(links, defaults, want):
    routes = [way(index, "0.0.0.0/0", "10.0.0.1", metric=metric) for metric, index in enumerate(defaults)]
    addresses = [at(link.index, "10.0.0.2/24") for link in links]
    assert inspect.pod_network(seen(*links, addresses=addresses, routes=routes)).interface == want


def test_no_interface_or_no_address_is_said():
    with pytest.raises(InvalidInput, match="no interface besides the loopback"):
        inspect.pod_network(seen())
    with pytest.raises(InvalidInput, match="eth0 has no address"):
        inspect.pod_network(seen(ETH0, addresses=[at(2, "fe80::1/64")]))
    with pytest.raises(InvalidInput, match=r"several interfaces \(a, net1\)"):
        inspect.pod_network(seen(Link(index=4, name="a", up=True), NET1))


HOST = Link(index=5, name="ens5", mtu=9001, up=True)


def test_the_host_interface_is_the_default_routes():
    found = inspect.host_underlay(
        seen(
            ETH0,
            HOST,
            addresses=[
                at(2, "10.0.0.9/24"),
                at(5, "169.254.0.5/16", scope=253),
                at(5, "fd00::5/64"),
                at(5, "192.168.1.5/20"),
                at(5, "192.168.1.6/20"),
            ],
            routes=[way(2, "0.0.0.0/0", "10.0.0.1", metric=100), way(5, "0.0.0.0/0", "192.168.0.1")],
        )
    )
    assert found == inspect.Underlay(interface="ens5", address=ip_interface("192.168.1.5/20"), mtu=9001)


def test_an_ipv6_only_node():
    found = inspect.host_underlay(
        seen(
            HOST,
            addresses=[at(5, "10.9.9.9/32"), at(5, "fd00::5/64")],
            routes=[way(5, "::/0", "fe80::1")],
        )
    )
    assert str(found.address) == "fd00::5/64"


def test_the_setting_overrides():
    addresses = [at(2, "10.0.0.9/24"), at(5, "192.168.1.5/20")]
    all_seen = seen(ETH0, HOST, addresses=addresses, routes=[way(5, "0.0.0.0/0", "192.168.0.1")])
    assert inspect.host_underlay(all_seen, "eth0").interface == "eth0"
    with pytest.raises(ConfigError, match="HOST_INTERFACE 'eth9' does not exist on this node; there are: eth0, ens5"):
        inspect.host_underlay(all_seen, "eth9")


def test_no_default_route_or_no_address_says_what_to_set():
    with pytest.raises(ConfigError, match=r"no default route.*HOST_INTERFACE or --host-interface"):
        inspect.host_underlay(seen(ETH0, addresses=[at(2, "10.0.0.9/24")]))
    with pytest.raises(ConfigError, match=r"eth0 has no global address.*HOST_INTERFACE"):
        inspect.host_underlay(seen(ETH0), "eth0")


def test_an_address_that_the_host_lost():
    host = seen(HOST, addresses=[at(5, "192.168.1.5/20")])
    inspect.check_held(host.addresses, ip_address("192.168.1.5"))
    with pytest.raises(NetworkError, match=r"192\.168\.1\.6.*no interface"):
        inspect.check_held(host.addresses, ip_address("192.168.1.6"))


def test_the_way_to_the_worker():
    vm = seen(HOST, addresses=[at(5, "192.168.1.5/20"), at(5, "192.168.1.6/20"), at(5, "fd00::5/64")])
    found = inspect.way_underlay(vm, way(5, "192.168.1.1/32", source=ip_address("192.168.1.6")))
    assert found is not None
    assert str(found.address) == "192.168.1.6/20"
    plain = inspect.way_underlay(vm, way(5, "192.168.1.1/32"))
    assert plain is not None
    assert str(plain.address) == "192.168.1.5/20"


def test_no_way_while_the_interface_is_down_or_bare():
    down = Link(index=5, name="ens5", mtu=1500, up=False)
    route = way(5, "192.168.1.1/32")
    assert inspect.way_underlay(seen(down, addresses=[at(5, "192.168.1.5/20")]), route) is None
    assert inspect.way_underlay(seen(HOST, addresses=[at(5, "fd00::5/64")]), route) is None
    assert inspect.way_underlay(seen(), route) is None
    assert inspect.way_underlay(seen(HOST), None) is None
