"""The hypervisor of the fake clouds: instances boot as local pod VMs with their cloud's metadata service in them."""

import base64
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from queue import SimpleQueue

import pytest

from caa.net import netns
from caa.net.netlink import Netlink
from caa.testing.bootable import user_data
from caa.wire.certs import NodeAuthority
from podvm.clouds.metadata import LINK_LOCAL
from tests.fakes.machines import GROUNDS, Guest, Machines, Order

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft"), pytest.mark.usefixtures("own_network")]
NAME = "podvm-web-0a1b2c3d"
UP = "forwarder listens"


@pytest.fixture
def document(tmp_path: Path) -> bytes:
    return user_data(NodeAuthority.load_or_create(tmp_path), NAME)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Machines]:
    with closing(Machines(tmp_path / "vms", GROUNDS["aws"])) as made:
        yield made
    assert not records(tmp_path)


def records(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "vms" / "vms").glob("*")]


def guest(document: bytes | None, *, address: str = "10.0.0.7", after: float = 0.0) -> Guest:
    return Guest(address=IPv4Address(address), user_data=document, after=after)


def printed(machines: Machines, until: str, *, times: int = 1) -> str:
    """The console once it holds `until` so often; fails after 20 s."""
    end = time.monotonic() + 20
    while (console := machines.console(NAME).decode()).count(until) < times:
        assert time.monotonic() < end, f"no {until!r} on the console:\n{console}"
        time.sleep(0.01)
    return console


def links() -> list[str]:
    with Netlink.open() as node:
        return [link.name for link in node.links()]


def gone(tmp_path: Path) -> None:
    """Wait until the record has gone, the last of a machine, and the bridge with it."""
    end = time.monotonic() + 10
    while records(tmp_path) or links() != ["lo"]:
        assert time.monotonic() < end, links()
        time.sleep(0.01)


def answered(machines: Machines, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    """What the metadata service says to a process in the guest's network namespace."""
    pid = min(machines._cgroups.processes(NAME))

    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LINK_LOCAL, timeout=5)
        with closing(connection):
            connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.read()

    with netns.opened(f"/proc/{pid}/ns/net") as inside:
        return netns.inside(inside, ask)


@pytest.mark.parametrize(
    ("cloud", "address", "encoded"),
    [("aws", "10.0.0.7", False), ("azure", "10.0.0.7", False), ("gcp", "10.1.4.7", True)],
)
def test_a_guest_finds_in_which_cloud_it_is_and_boots(
    tmp_path: Path, document: bytes, cloud: str, address: str, encoded: bool
) -> None:
    given = base64.b64encode(document) if encoded else document  # Google serves an attribute as it was set
    with closing(Machines(tmp_path / "vms", GROUNDS[cloud])) as machines:
        machines.begin(NAME, guest(given, address=address))
        assert f"podvm: user data from {cloud}\n" in printed(machines, UP)
    assert links() == ["lo"]
    assert not records(tmp_path)


def test_version_2_alone_and_in_the_guest_alone(aws: Machines, document: bytes) -> None:
    aws.begin(NAME, guest(document))
    printed(aws, UP)
    assert answered(aws, "GET", "/latest/user-data") == (401, b"")
    status, token = answered(aws, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60")
    assert status == 200
    assert answered(aws, "GET", "/latest/user-data", X_aws_ec2_metadata_token=token.decode()) == (200, document)
    with pytest.raises(OSError, match="unreachable"):
        http.client.HTTPConnection(LINK_LOCAL, timeout=1).connect()


def test_no_user_data_no_boot(aws: Machines, tmp_path: Path) -> None:
    halted = threading.Event()
    aws.halted = lambda name: halted.set()
    aws.begin(NAME, guest(None))
    assert "the instance was launched without user data" in printed(aws, "podvm: halt")
    assert halted.wait(10)
    gone(tmp_path)


def test_a_guest_that_fails_is_told_and_its_words_stay(aws: Machines, tmp_path: Path) -> None:
    halted: SimpleQueue[str] = SimpleQueue()
    aws.halted = halted.put
    aws.begin(NAME, guest(b"#cloud-config\nruncmd: [reboot]\n"))
    assert "unknown key 'runcmd'" in printed(aws, "podvm: halt")
    assert halted.get(timeout=10) == NAME
    gone(tmp_path)
    assert "unknown key 'runcmd'" in aws.console(NAME).decode()


@pytest.mark.parametrize(
    ("name", "address", "reason"), [(NAME, "10.9.0.7", "10.9.0.7 is not in 10.0.0.0/16"), ("../x", "10.0.0.7", "name")]
)
def test_what_cannot_be_booted_says_so_on_the_console(aws: Machines, name: str, address: str, reason: str) -> None:
    halted = threading.Event()
    aws.halted = lambda name: halted.set()
    aws.begin(name, guest(b"", address=address))
    assert halted.wait(10)
    assert reason in aws.console(name).decode()
    assert links() == ["lo"]


def test_a_machine_that_cannot_be_made_says_why(aws: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    halted = threading.Event()
    aws.halted = lambda name: halted.set()

    def refuse(pid: int, rules: object) -> None:
        raise OSError("no metadata today")

    monkeypatch.setattr("tests.fakes.machines._metadata", refuse)
    aws.begin(NAME, guest(b""))
    assert halted.wait(10)
    assert aws.console(NAME) == b"hypervisor: the instance cannot be booted: no metadata today\n"
    assert links() == ["lo"]


def test_stop_start_reboot_and_end(aws: Machines, document: bytes, tmp_path: Path) -> None:
    halted: list[str] = []
    aws.halted = halted.append
    aws.begin(NAME, guest(document))
    printed(aws, UP)
    aws.order(NAME, Order.STOP)
    gone(tmp_path)
    assert UP in aws.console(NAME).decode()
    aws.order(NAME, Order.START)
    printed(aws, UP, times=2)
    first = aws._cgroups.processes(NAME)
    aws.order(NAME, Order.REBOOT)
    printed(aws, UP, times=3)
    assert not first & aws._cgroups.processes(NAME)
    aws.order(NAME, Order.END)
    gone(tmp_path)
    assert aws.console(NAME) == b""
    assert not aws._cgroups.processes(NAME)
    assert halted == []


def test_an_instance_that_ends_before_its_time_never_boots(aws: Machines, tmp_path: Path) -> None:
    aws.begin(NAME, guest(b"", after=0.2))
    aws.order(NAME, Order.END)
    time.sleep(0.5)
    assert not records(tmp_path)
    assert links() == ["lo"]


def test_what_a_killed_host_left_goes_with_the_next_one(aws: Machines, document: bytes, tmp_path: Path) -> None:
    aws.begin(NAME, guest(document))
    printed(aws, UP)
    with closing(Machines(tmp_path / "vms", GROUNDS["aws"])):
        assert links() == ["lo"]
        assert not records(tmp_path)


def test_orders_for_nobody_are_passed_over(aws: Machines) -> None:
    for order in Order:
        aws.order("nobody", order)
    assert aws.console("nobody") == b""
