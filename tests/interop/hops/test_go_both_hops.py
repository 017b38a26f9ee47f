"""A Go client as the shim, containerd's Go server as the agent, and both of our hops between them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.needs("go"), pytest.mark.needs("protoc"), pytest.mark.root]


@pytest.fixture
def guest(our_forwarder: Callable[..., Any], node: Any) -> Any:
    return our_forwarder(node)


@pytest.fixture
def shim_socket(relay: Any, guest: Any, node: Any) -> Iterator[tuple[str, str]]:
    """The client's flags; what the hops count as faults is looked for at the end."""
    relay.open(guest.port, node)
    yield "-socket", str(relay.socket)
    assert "malformed" not in relay.process.text() + guest.process.text()


@pytest.mark.timeout(900)  # the first one builds
def test_each_case_on_the_first_connection_and_on_a_later_one(go_client: Any, shim_socket: Any, case: str) -> None:
    assert go_client.plays(case, *shim_socket) == [f"ok {case}"], "stream ids as the shim chose them"
    assert go_client.plays(case, *shim_socket) == [f"ok {case}"], "stream ids of the relay's own"


def test_two_clients_at_once(go_client: Any, shim_socket: Any) -> None:
    clients = [go_client.begins("sizes,flight,errors,deadline", *shim_socket) for _ in range(2)]
    for client in clients:
        said, complaint = client.communicate(timeout=90)
        assert client.returncode == 0, complaint
        assert said.split("\n") == ["ok sizes", "ok flight", "ok errors", "ok deadline", ""]


def test_clients_that_are_killed_in_the_middle_of_it(go_client: Any, shim_socket: Any, relay: Any, until: Any) -> None:
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(go_client.begins("flight,flight", *shim_socket))
        for seconds in (0.02, 0.05, 0.1, 0.15, 0.2):
            dying = stack.enter_context(go_client.begins("flight", *shim_socket))
            time.sleep(seconds)
            dying.kill()
        said, complaint = good.communicate(timeout=90)
    assert (good.returncode, complaint) == (0, "")
    assert said == "ok flight\n"
    assert go_client.plays("sizes,errors,deadline", *shim_socket) == ["ok sizes", "ok errors", "ok deadline"]
    until(lambda: relay.shims() == [(True, 0)], "the relay to forget them")


def test_what_the_guest_edits_is_read_by_go_as_meant(go_client: Any, shim_socket: Any, guest: Any) -> None:
    assert go_client.plays("edited", *shim_socket) == ["ok edited"]
    made = Path(f"/proc/{guest.process.child.pid}/root/run/interop/bind/source")
    assert made.is_dir()
    assert not Path("/run/interop").exists()
    assert go_client.plays("edited", *shim_socket) == ["ok edited"]
