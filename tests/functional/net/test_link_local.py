"""Containers and metadata services: real packets from the pod's namespace, through real nftables rules."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest

from caa.errors import NetworkError
from podvm import linklocal

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

SERVICES = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16")


def serve_everywhere(world) -> None:
    """The addresses of every cloud's service on the bridge, which is where a pod's packets come out on the worker."""
    for address in (*SERVICES, "169.254.20.10", "fe80::99"):
        suffix = "/128 dev cni0 nodad" if ":" in address else "/32 dev cni0"
        world.worker.ip(f"addr add {address}{suffix}\n")


def reaches(world, address: str, *, port: int = 80) -> str:
    """What becomes of a TCP connection from the pod: "connected" when a service there has accepted it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    scope = "%eth0" if address.startswith("fe80") else ""

    def dial() -> str:
        try:
            found = socket.getaddrinfo(address + scope, port, family, socket.SOCK_STREAM)[0][4]
            with socket.socket(family) as sock:
                sock.settimeout(5)
                sock.connect(found)
                return "connected"
        except OSError as error:
            return error.strerror or "timed out"

    with listening(world, family, port):
        return world.pod.inside(dial)


@contextmanager
def listening(world, family: int, port: int) -> Iterator[None]:
    listener = world.worker.inside(lambda: socket.create_server(("", port), family=family))
    thread = threading.Thread(target=accept_all, args=(listener,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def accept_all(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_services_are_there_without_the_rules(world):
    """Otherwise the other tests would show nothing."""
    serve_everywhere(world)
    assert {address: reaches(world, address) for address in SERVICES} == dict.fromkeys(SERVICES, "connected")


def test_no_service_is_reached(world):
    serve_everywhere(world)
    linklocal.deny(world.pod.path)
    assert reaches(world, "fe80::99") != "connected"
    found = {address: reaches(world, address) for address in (*SERVICES, "169.254.20.10")}
    assert "connected" not in found.values()
    assert "timed out" not in found.values()  # refused at once, not a hanging container


def test_names_and_the_cluster_still_answer(world):
    serve_everywhere(world)
    linklocal.deny(world.pod.path)
    assert reaches(world, "169.254.20.10", port=53) == "connected"
    assert reaches(world, "169.254.169.254", port=53) == "connected"
    assert reaches(world, "10.88.0.1") == "connected"
    assert reaches(world, "fd88::1") == "connected"
    assert world.pod.pings("fd88::20")  # neighbour discovery works


def test_a_container_with_a_namespace_of_its_own(world):
    """What the pod forwards is guarded as well as what it sends."""
    serve_everywhere(world)
    linklocal.deny(world.pod.path)
    world.guest.run("true")
    world.pod.ip(f"link add inner type veth peer name eth0 netns {world.guest.process.pid}\nlink set inner up\n")
    world.pod.ip("addr add 172.30.0.1/24 dev inner\n")
    world.guest.ip("link set eth0 up\naddr add 172.30.0.2/24 dev eth0\nroute add default via 172.30.0.1\n")
    world.pod.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    world.worker.ip("route add 172.30.0.0/24 via 10.88.0.10\n")
    assert world.guest.pings("10.88.0.1")
    assert not world.guest.pings("169.254.169.254")


def test_what_is_allowed_is_reached(world):
    serve_everywhere(world)
    linklocal.deny(world.pod.path, [ip_network("169.254.169.254/32"), ip_network("fd00:ec2::254/128")])
    assert reaches(world, "169.254.169.254") == "connected"
    assert reaches(world, "fd00:ec2::254") == "connected"
    assert reaches(world, "169.254.20.10") != "connected"


def test_everything_may_be_allowed(world):
    serve_everywhere(world)
    linklocal.deny(world.pod.path)
    linklocal.deny(world.pod.path, [ip_network("0.0.0.0/0")])
    assert reaches(world, "169.254.169.254") == "connected"
    assert linklocal.TABLE not in world.pod.run("nft", "list", "tables")


def test_twice_is_once_and_nothing_leaks_into_our_namespace(world):
    for _ in range(2):
        linklocal.deny(world.pod.path)
    rules = world.pod.run("nft", "list", "table", "inet", linklocal.TABLE)
    assert rules.count("chain deny") == 1
    assert linklocal.TABLE not in world.worker.run("nft", "list", "tables")


def test_without_nftables_the_pod_does_not_start(world, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NetworkError, match="containers could reach the cloud's metadata service: the program nft"):
        linklocal.deny(world.pod.path)


def test_a_kernel_that_cannot_reject_drops(world, monkeypatch):
    serve_everywhere(world)
    real = linklocal.ruleset
    monkeypatch.setattr(linklocal, "ruleset", lambda a, v: real(a, "unknown-word" if "reject" in v else v))
    linklocal.deny(world.pod.path)
    assert " drop" in world.pod.run("nft", "list", "table", "inet", linklocal.TABLE)
