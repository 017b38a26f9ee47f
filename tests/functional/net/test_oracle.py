"""Our codec beside pyroute2: what one writes the other reads, on the real kernel."""

import json
import sys
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from caa.model.network import Neighbour, Route
from caa.net import codec, netns, traffic
from caa.net import messages as m
from caa.net.netlink import Netlink

pytestmark = pytest.mark.root

ORACLE = """
import json, sys
from pyroute2 import IPRoute
with IPRoute() as ip:
    print(json.dumps(eval(sys.argv[1])))
"""
NEW = codec.NLM_F_CREATE | codec.NLM_F_EXCL


@pytest.fixture
def ours(box):
    box.ip("link add eth0 type veth peer name far\nlink set eth0 up\nlink set far up\n")
    with netns.opened(box.path) as descriptor, Netlink.open(descriptor) as netlink:
        yield netlink


@pytest.fixture
def theirs(box, ours):
    """Run one expression over `ip`, pyroute2's IPRoute, in a process of its own inside the box: it needs a loop."""

    def ask(expression: str):
        return json.loads(box.run(sys.executable, "-W", "ignore", "-c", ORACLE, expression))

    return ask


def put(ours, kind: int, body: bytes) -> None:
    ours.change(kind, body, flags=NEW, what="play")


def test_links_are_read_alike(ours, theirs):
    want = theirs("[(l['index'], l.get_attr('IFLA_IFNAME'), l.get_attr('IFLA_MTU')) for l in ip.get_links()]")
    assert [[link.index, link.name, link.mtu] for link in ours.links()] == want
    link = ours.link("eth0")
    assert link is not None
    assert link.hwaddr == theirs(f"ip.get_links({link.index})[0].get_attr('IFLA_ADDRESS')")
    assert (link.kind, link.up) == ("veth", True)


def test_addresses(ours, theirs):
    index = ours.link("eth0").index
    for text in ("10.1.0.5/24", "fd01::5/64"):
        put(ours, m.RTM_NEWADDR, m.address(index, ip_interface(text)))
    names = "a.get_attr('IFA_ADDRESS'), a['prefixlen'], a.get_attr('IFA_FLAGS')"
    seen = theirs(f"[({names}) for a in ip.get_addr(index={index}) if a['scope'] == 0]")
    assert [(address, prefix) for address, prefix, _ in seen] == [("10.1.0.5", 24), ("fd01::5", 64)]
    assert all(flags & m.IFA_F_NOPREFIXROUTE for _, _, flags in seen)
    read = [str(a.interface) for a in ours.addresses() if a.index == index and a.scope == 0]
    assert read == ["10.1.0.5/24", "fd01::5/64"]


def test_routes(ours, theirs):
    index = ours.link("eth0").index
    put(ours, m.RTM_NEWADDR, m.address(index, ip_interface("10.1.0.5/32")))
    wanted = Route(
        destination=ip_network("10.9.0.0/16"),
        gateway=ip_address("169.254.1.1"),
        source=ip_address("10.1.0.5"),
        protocol=4,
        table=1000,
        metric=77,
        onlink=True,
    )
    put(ours, m.RTM_NEWROUTE, m.route(index, wanted))
    fields = ["RTA_DST", "RTA_GATEWAY", "RTA_PREFSRC", "RTA_PRIORITY", "RTA_OIF"]
    seen = theirs(
        f"[[r.get_attr(n) for n in {fields}] + [r['dst_len'], r['proto'], r['flags'] & 4]"
        " for r in ip.get_routes(table=1000)]"
    )
    assert seen == [["10.9.0.0", "169.254.1.1", "10.1.0.5", 77, index, 16, 4, 4]]
    assert m.RouteRow(index=index, kind=1, route=wanted) in ours.routes()
    theirs(f"bool(ip.route('add', dst='10.8.0.0/16', oif={index}, scope=253, priority=5, proto=4))")
    their = Route(destination=ip_network("10.8.0.0/16"), protocol=4, scope=253, metric=5)
    assert m.RouteRow(index=index, kind=1, route=their) in ours.routes()


def test_a_v4_route_through_a_v6_gateway(ours, theirs):
    index = ours.link("eth0").index
    wanted = Route(destination=ip_network("10.7.0.0/16"), gateway=ip_address("fe80::1"), protocol=4)
    put(ours, m.RTM_NEWROUTE, m.route(index, wanted))
    assert m.RouteRow(index=index, kind=1, route=wanted) in ours.routes()
    assert theirs("[r.get_attr('RTA_VIA')['addr'] for r in ip.get_routes(family=2) if r.get_attr('RTA_VIA')]") == [
        "fe80::1"
    ]


def test_neighbours(ours, theirs):
    index = ours.link("eth0").index
    for text in ("169.254.1.1", "fd01::99"):
        wanted = Neighbour(address=ip_address(text), lladdr="02:00:00:00:00:99")
        put(ours, m.RTM_NEWNEIGH, m.neighbour(index, wanted))
        family = 2 if wanted.address.version == 4 else 10
        seen = theirs(
            f"[(n.get_attr('NDA_DST'), n.get_attr('NDA_LLADDR'), n['state']) for n in ip.get_neighbours({family})"
            " if n['state'] & 0x80]"
        )
        assert seen == [[text, "02:00:00:00:00:99", 0x80]]
        assert m.NeighbourRow(index=index, neighbour=wanted) in ours.neighbours()


def test_vxlan(ours, theirs, box):
    index = ours.link("eth0").index
    put(ours, m.RTM_NEWADDR, m.address(index, ip_interface("10.1.0.5/24")))
    vxlan = m.Vxlan(vni=4242, port=4790, local=ip_address("10.1.0.5"), remote=ip_address("10.1.0.6"))
    with netns.opened(box.path) as descriptor:
        put(ours, m.RTM_NEWLINK, m.new_vxlan("vx", vxlan, netns=descriptor, mtu=1400, hwaddr="02:00:00:00:00:0a"))
    link = ours.link("vx")
    assert link is not None
    assert (link.vxlan, link.mtu, link.hwaddr) == (vxlan, 1400, "02:00:00:00:00:0a")
    fields = [f"IFLA_VXLAN_{name}" for name in ("ID", "GROUP", "LOCAL", "PORT", "LEARNING")]
    data = f"ip.get_links({link.index})[0].get_nested('IFLA_LINKINFO', 'IFLA_INFO_DATA')"
    assert theirs(f"[{data}.get_attr(n) for n in {fields}]") == [4242, "10.1.0.6", "10.1.0.5", 4790, 0]


def test_filters(ours, theirs):
    index, far = ours.link("eth0").index, ours.link("far").index
    put(ours, traffic.RTM_NEWQDISC, traffic.ingress(index))
    put(ours, traffic.RTM_NEWTFILTER, traffic.redirect(index, far))
    assert ours.filters(index) == [traffic.Filter(priority=1, kind="u32", target=far)]
    assert any(q.kind == "ingress" and q.index == index for q in ours.qdiscs())
    kinds = theirs(f"[f.get_attr('TCA_KIND') for f in ip.get_filters(index={index}, parent=0xFFFFFFF2)]")
    assert set(kinds) == {"u32"}
    mirred = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": index}
    theirs(
        f"bool(ip.tc('add', 'ingress', {far})) and bool(ip.tc('add-filter', 'u32', {far}, parent=0xFFFF0000, prio=1,"
        f" protocol=3, target=0x10000, keys=['0x0/0x0+0'], action={mirred}))"
    )
    assert ours.filters(far) == [traffic.Filter(priority=1, kind="u32", target=index)]


def test_the_kernels_own_text_reaches_the_error(ours):
    index = ours.link("eth0").index
    bad = Route(destination=ip_network("10.9.0.0/16"), gateway=ip_address("8.8.8.8"))
    with pytest.raises(codec.KernelRefused, match="Nexthop has invalid gateway"):
        put(ours, m.RTM_NEWROUTE, m.route(index, bad))


def test_many_links_fill_several_datagrams(ours, box):
    box.ip("".join(f"link add br{number} type bridge\n" for number in range(80)))
    assert {f"br{number}" for number in range(80)} <= {link.name for link in ours.links()}
