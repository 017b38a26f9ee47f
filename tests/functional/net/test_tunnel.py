"""The whole pod network: worker half, guest half, traffic through both."""

import asyncio
import socket
import threading
import time
from ipaddress import ip_address, ip_interface

import pytest

from caa.errors import ConfigError, InvalidInput, NetworkError
from caa.model.ids import SandboxId
from caa.model.network import PodNetwork, Tunnel, Whose
from caa.net.worker import VxlanNetworking
from podvm import network as guest_network

pytestmark = pytest.mark.root

WHOSE = Whose(sandbox=SandboxId("ab" * 32), pod_name="web", pod_namespace="default")
PEER4 = ip_address("192.168.77.2")
PEER6 = ip_address("fd77::2")
MATCH_ALL = ("match", "u32", "0", "0", "classid", "1:1")


def connect(world, *, peer=PEER4, host_interface="", index=0) -> tuple[PodNetwork, Tunnel]:
    async def act():
        networking = VxlanNetworking(host_interface=host_interface)
        network = await networking.inspect(world.pod.path)
        tunnel = await networking.worker_tunnel(index, network)
        await networking.connect(world.pod.path, network=network, tunnel=tunnel, peer=peer, whose=WHOSE)
        await networking.close()
        return network, tunnel

    return world.worker.run_async(act)


def disconnect(world, tunnel: Tunnel, path: str = "") -> None:
    async def act():
        networking = VxlanNetworking()
        await networking.disconnect(path or world.pod.path, tunnel)
        await networking.close()

    world.worker.run_async(act)


def guest(world, network: PodNetwork, tunnel: Tunnel) -> None:
    world.vm.inside(lambda: guest_network.setup(world.guest.path, network, tunnel=tunnel))


def test_ping_both_families_and_mtu(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")
    assert world.client.pings("fd88::10")
    assert world.guest.pings("10.88.0.20")
    assert world.guest.pings("fd88::1")
    assert tunnel.mtu == 1450
    assert world.guest.pings("10.88.0.20", "-Mdo", f"-s{1450 - 28}")
    assert not world.guest.pings("10.88.0.20", "-Mdo", f"-s{1450 - 27}")
    assert world.client.pings("10.88.0.10", "-Mdo", f"-s{1450 - 28}")


def serve_once(box, port: int) -> None:
    """Answer one TCP connection inside the box with its namespace's mark."""
    listener = box.inside(lambda: socket.create_server(("0.0.0.0", port)))

    def answer() -> None:
        with listener:
            accepted, _ = listener.accept()
            accepted.sendall(b"guest")
            accepted.close()

    threading.Thread(target=answer, daemon=True).start()


def test_the_guest_answers_not_the_pod_namespace(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    serve_once(world.guest, 8080)
    with world.client.inside(lambda: socket.create_connection(("10.88.0.10", 8080), timeout=5)) as client:
        assert client.recv(100) == b"guest"


def test_the_guest_interface_is_the_pods(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert network.interface == "eth0"
    shown = world.guest.run("ip", "-d", "addr", "show", "eth0")
    assert network.hwaddr in shown
    assert "inet 10.88.0.10/24" in shown
    assert "inet6 fd88::10/64" in shown
    assert "vxlan id 555000 remote 192.168.77.1 local 192.168.77.2" in shown
    for family in ("-4", "-6"):
        want = world.pod.run("ip", family, "route", "show", "table", "main")
        have = world.guest.run("ip", family, "route", "show", "table", "main")
        assert sorted(global_only(have)) == sorted(global_only(want))
    assert "mtu 1500" in world.pod.run("ip", "link", "show", "eth0")


def global_only(lines: str) -> list[str]:
    return [line.strip() for line in lines.splitlines() if not line.startswith("fe80::")]


def test_over_ipv6(world):
    world.worker.ip("addr flush dev eth0\naddr add fd77::1/64 dev eth0 nodad\nroute add default via fd77::2\n")
    network, tunnel = connect(world, peer=PEER6)
    assert (str(tunnel.worker), tunnel.mtu) == ("fd77::1/64", 1430)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10", "-Mdo", f"-s{1430 - 28}")
    assert world.client.pings("fd88::10")


def test_peer_of_the_other_family_is_refused(world):
    with pytest.raises(InvalidInput, match="different IP versions"):
        connect(world, peer=PEER6)
    assert "vxlan1" not in world.pod.run("ip", "link")


def pod_state(world) -> str:
    """All links, disciplines and filters of the pod's namespace, without counters."""
    filters = "".join(
        world.pod.run("tc", "filter", "show", "dev", device, "ingress", check=False) for device in ("eth0", "vxlan1")
    )
    return world.pod.run("ip", "-d", "addr") + world.pod.run("tc", "qdisc", "show") + filters


def test_twice_is_once(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    pod, inner = pod_state(world), world.guest.run("ip", "-d", "addr") + world.guest.run("ip", "route")
    assert pod.count("mirred") == 2
    connect(world)
    guest(world, network, tunnel)
    assert pod_state(world) == pod
    assert world.guest.run("ip", "-d", "addr") + world.guest.run("ip", "route") == inner
    assert world.client.pings("10.88.0.10")


def test_a_half_made_tunnel_is_repaired(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    whole = pod_state(world).count("mirred")
    world.pod.run("tc", "filter", "del", "dev", "eth0", "ingress")
    connect(world)
    assert pod_state(world).count("mirred") == whole
    world.pod.run("ip", "link", "del", "vxlan1")
    connect(world)
    assert pod_state(world).count("mirred") == whole
    assert world.client.pings("10.88.0.10")


def test_another_pod_vm_replaces_the_tunnel(world):
    connect(world)
    connect(world, peer=ip_address("192.168.77.3"))
    assert "remote 192.168.77.3" in pod_state(world)
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")


def test_disconnect_leaves_nothing(world):
    before = pod_state(world), world.worker.run("ip", "addr"), world.worker.run("nft", "list", "ruleset")
    _, tunnel = connect(world)
    for _ in range(2):
        disconnect(world, tunnel)
        assert (pod_state(world), world.worker.run("ip", "addr"), world.worker.run("nft", "list", "ruleset")) == before
    assert world.client.pings("10.88.0.10")  # the pod's own kernel answers again


def test_disconnect_when_the_namespace_is_gone(world):
    _, tunnel = connect(world)
    path = world.pod.path
    assert listens_for_vxlan(world.worker)
    world.pod.end()
    disconnect(world, tunnel, path)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and listens_for_vxlan(world.worker):
        time.sleep(0.05)  # the kernel removes a namespace in the background
    assert not listens_for_vxlan(world.worker)


def listens_for_vxlan(box) -> bool:
    return f":{4789:04X} " in box.run("cat", "/proc/net/udp")


def test_a_taken_id_is_explained(world):
    world.worker.ip("link add other type vxlan id 555000 dstport 4789 remote 192.168.77.9\n")
    with pytest.raises(NetworkError, match=r"VXLAN id 555000 on port 4789 is taken.*vxlan-min-id"):
        connect(world)
    assert "mirred" not in pod_state(world)
    assert "ingress" not in pod_state(world)


def test_a_failed_connect_leaves_nothing(world):
    before = pod_state(world)
    world.worker.ip("route del default\n")
    with pytest.raises(ConfigError, match="HOST_INTERFACE or --host-interface"):
        connect(world)
    _, tunnel = connect(world, host_interface="eth0")
    disconnect(world, tunnel)
    world.pod.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    world.pod.run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "1", "protocol", "ip", "u32", *MATCH_ALL)
    with pytest.raises(NetworkError, match="the kernel refused to redirect eth0 to vxlan1"):
        connect(world, host_interface="eth0")
    world.pod.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    assert pod_state(world) == before


def test_a_clsact_of_the_plugin_stays(world):
    world.pod.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")
    disconnect(world, tunnel)
    assert "clsact" in pod_state(world)
    assert "mirred" not in pod_state(world)


def test_permanent_neighbour_and_onlink_gateway(world):
    """The EKS way: a /32, a gateway that is on no network of the pod, and its hardware address by hand."""
    mac = world.worker.run("ip", "-o", "link", "show", "cni0").split("link/ether ")[1].split()[0]
    world.worker.ip("route add 10.99.0.7/32 dev cni0\n")
    world.worker.run("sysctl", "-w", "net.ipv4.ip_forward=1")  # of that namespace alone
    world.pod.ip(
        f"""addr flush dev eth0
        addr add 10.99.0.7/32 dev eth0
        route add default via 169.254.1.1 dev eth0 onlink
        neigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent
        route add 10.77.0.0/16 via 169.254.1.1 dev eth0 onlink table 100 metric 7 src 10.99.0.7
        """
    )
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert f"169.254.1.1 dev eth0 lladdr {mac} PERMANENT" in world.guest.run("ip", "neigh")
    assert "default via 169.254.1.1 dev eth0 onlink" in world.guest.run("ip", "route")
    other = world.guest.run("ip", "route", "show", "table", "100")
    assert "10.77.0.0/16 via 169.254.1.1 dev eth0" in other
    assert "src 10.99.0.7 metric 7 onlink" in other
    assert world.guest.pings("192.168.77.1")
    assert world.client.run("ip", "route", "add", "10.99.0.7", "via", "10.88.0.1") == ""
    assert world.client.pings("10.99.0.7")


def test_ptp_plugin_routes(world):
    """The ptp and GKE way: the kernel's prefix route is replaced by one through the gateway."""
    world.pod.ip(
        """route del 10.88.0.0/24 dev eth0
        route add 10.88.0.1 dev eth0 scope link src 10.88.0.10
        route add 10.88.0.0/24 via 10.88.0.1 src 10.88.0.10
        """
    )
    world.pod.ip("route replace default via 10.88.0.1\n")
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    want = world.pod.run("ip", "-4", "route")
    assert sorted(world.guest.run("ip", "-4", "route").splitlines()) == sorted(want.splitlines())


def test_a_pod_vm_that_is_not_behind_the_default_route(world):
    """The worker's address is on one interface, the way to the pod VM leads through another."""
    world.worker.ip(
        """link add nic0 type bridge
        link set nic0 up
        addr add 172.30.0.1/24 dev nic0
        route del default
        route add default via 172.30.0.254
        """
    )
    world.vm.ip("route add default via 192.168.77.1\n")
    network, tunnel = connect(world)
    assert str(tunnel.worker) == "172.30.0.1/24"
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")


def test_guest_teardown(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    for _ in range(2):
        world.vm.inside(lambda: guest_network.teardown(world.guest.path, network, tunnel=tunnel))
        assert "eth0" not in world.guest.run("ip", "link")
        assert "notrack" not in world.vm.run("nft", "list", "ruleset")


def test_guest_clamps_the_reference_adaptors_mtu(world):
    network, tunnel = connect(world)
    reference = Tunnel(kind="vxlan", index=0, vni=tunnel.vni, port=tunnel.port, worker=tunnel.worker, mtu=1500)
    guest(world, network, reference)
    assert "mtu 1450" in world.guest.run("ip", "link", "show", "eth0")


def test_guest_waits_for_its_interface(world):
    network, tunnel = connect(world)
    world.vm.ip("addr flush dev ens1\n")
    late = threading.Timer(0.4, lambda: world.vm.ip("addr add 192.168.77.2/24 dev ens1\n"))
    late.start()
    guest(world, network, tunnel)
    late.join()
    assert world.client.pings("10.88.0.10")


def test_packets_above_the_tunnels_mtu_arrive_in_pieces(world):
    """A neighbour on the bridge knows nothing of the tunnel: its full-size UDP packets must not vanish."""
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    receiver = world.guest.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = world.client.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind(("0.0.0.0", 5000))
        receiver.settimeout(5)
        sender.sendto(bytes(1472), ("10.88.0.10", 5000))
        assert len(receiver.recv(2000)) == 1472


def test_a_megabyte_each_way(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    listener = world.guest.inside(lambda: socket.create_server(("0.0.0.0", 8081)))
    data = bytes(range(256)) * 4096

    def echo() -> None:
        with listener:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(receive(accepted, len(data)))

    threading.Thread(target=echo, daemon=True).start()
    with world.client.inside(lambda: socket.create_connection(("10.88.0.10", 8081), timeout=20)) as client:
        client.sendall(data)
        assert receive(client, len(data)) == data


def receive(sock: socket.socket, length: int) -> bytes:
    got = bytearray()
    while len(got) < length:
        piece = sock.recv(1 << 16)
        assert piece, "the connection ended early"
        got += piece
    return bytes(got)


def test_connect_after_a_cancelled_connect(world):
    """A cancelled caller leaves the kernel thread at work; the disconnect that follows comes after it."""

    async def act():
        networking = VxlanNetworking()
        network = await networking.inspect(world.pod.path)
        tunnel = await networking.worker_tunnel(0, network)
        task = asyncio.ensure_future(
            networking.connect(world.pod.path, network=network, tunnel=tunnel, peer=PEER4, whose=WHOSE)
        )
        await asyncio.sleep(0)
        task.cancel()
        await networking.disconnect(world.pod.path, tunnel)
        await networking.close()

    before = pod_state(world)
    world.worker.run_async(act)
    assert pod_state(world) == before


@pytest.mark.parametrize("what", ["gone", "plain"])
def test_a_path_that_is_no_namespace(world, tmp_path, what):
    path = tmp_path / what
    if what == "plain":
        path.write_text("")

    async def act():
        networking = VxlanNetworking()
        tunnel = Tunnel(kind="vxlan", index=0, vni=1, port=4789, worker=ip_interface("192.168.77.1/24"), mtu=1450)
        await networking.disconnect(str(path), tunnel)
        try:
            await networking.inspect(str(path))
        finally:
            await networking.close()

    with pytest.raises(InvalidInput, match=f"{path}"):
        world.worker.run_async(act)
