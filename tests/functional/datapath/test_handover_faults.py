"""A fault of ours at any step of a hand-over, on either side: every pod is served by exactly one relay afterwards."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from caa.datapath import edits

OK = (0, "")
PODS = ("one", "two", "three")
_BREAK = """
import importlib
def _break(place, nth, after):
    module, _, path = place.partition(":")
    *way, name = path.split(".")
    target = importlib.import_module(module)
    for part in way:
        target = getattr(target, part)
    real, left = getattr(target, name), [nth]
    def faulty(*args, **words):
        left[0] -= 1
        if left[0]:
            return real(*args, **words)
        if after:
            real(*args, **words)
        raise RuntimeError("injected")
    setattr(target, name, faulty)
"""
_GIVER = (
    "giving:Giver._greet", "giving:Giver._show", "giving:Giver._freeze", "giving:Giver._give", "giving:Giver._hand",
    "giving:Giver._let_go", "giving:Giver._give_rest", "giving:Giver._wait", "giving:dump", "link:Link.freeze",
    "link:Link.leave", "session_mux:SessionMux.freeze", "hypervisor_front:Session.freeze", "commands:Commands.freeze",
)  # fmt: skip
_TAKER = (
    "taking:Taker._begin", "taking:Taker._shown", "taking:Taker._dial", "taking:Taker._move", "taking:Taker._take",
    "taking:Taker._serve", "taking:Taker._commit", "taking:Taker._take_next", "taking:take_up", "moving:_take_branch",
    "moving:_take_mux", "moving:inherit_unix", "link:Link.go_on", "taking:listeners", "agent_front:AgentFront.add",
)  # fmt: skip


def broken(argv: list[str], place: str, *, nth: int, after: bool) -> list[str]:
    """The command line of a relay in which the n-th call of a function fails, before or after its effect."""
    argv = list(argv)
    start, end = argv[4].split("from caa.relay.daemon import main; ")
    act = f"_break({'caa.relay.' + place!r}, {nth}, {after})"
    argv[4] = f"{start.rstrip('; ')}\n{_BREAK}\n{act}\nfrom caa.relay.daemon import main\n{end}"
    return argv


class Pods:
    """Three pods, their shims, a shim and a node at the control sockets, all connected before the fault."""

    def __init__(self, relay: Any, guest: Any, shim: Callable[[Any], Any]) -> None:
        self.relay, self.connect = relay, shim
        self.node = shim(relay.run / "relay.sock")
        self.starter = shim(relay.hypervisor)
        self.shims = {}
        for pod in PODS:
            assert relay.ask("Open", replace(guest.opening, sandbox=pod).payload()) == (OK, b"")
            self.shims[pod] = shim(relay.agent_socket(pod))
            assert self.shims[pod].call("Echo", pod.encode()) == (OK, pod.encode())

    def all_served(self) -> None:
        """Every connection goes on, and new ones are accepted."""
        for turn in range(3):
            for pod, one in self.shims.items():
                assert one.call("Echo", b"%d" % turn) == (OK, b"%d" % turn), pod
        assert sorted(self.relay.links()) == [(pod, True, 1) for pod in sorted(PODS)]
        status, said = self.node.call("List", service="caa.relay.v1.AgentLinks")
        assert status == OK
        assert len(edits.all_bytes(said, 1)) == len(PODS)
        stop = edits.bytes_field(1, b"sandbox1")
        assert self.starter.call("StopVM", stop, service="hypervisor.Hypervisor") == (OK, b"")
        assert self.connect(self.relay.hypervisor)


@pytest.fixture
def pods(start_relay: Any, guest: Any, shim: Any) -> Pods:
    return Pods(start_relay(), guest, shim)


@pytest.mark.parametrize(("nth", "after"), [(2, False), (1, True)], ids=["before the second", "after the first"])
@pytest.mark.parametrize("place", _TAKER)
def test_a_fault_in_the_successor(
    pods: Pods, launch_process: Any, until: Any, place: str, *, nth: int, after: bool
) -> None:
    old = pods.relay.process.child
    new = launch_process(broken(pods.relay.argv(), place, nth=nth, after=after))
    until(lambda: old.poll() is not None or new.child.poll() is not None, "one of both to end")
    assert old.poll() in (None, 0)
    pods.all_served()


@pytest.mark.parametrize(("nth", "after"), [(2, False), (1, True)], ids=["before the second", "after the first"])
@pytest.mark.parametrize("place", _GIVER)
def test_a_fault_in_the_old_relay(
    pods: Pods, launch_process: Any, until: Any, place: str, *, nth: int, after: bool
) -> None:
    first = pods.relay.process.child
    old = launch_process(broken(pods.relay.argv(), place, nth=nth, after=after))
    until(lambda: first.poll() is not None, "the first relay to end")
    until(lambda: "serving" in old.text(), "the second one to serve")
    new = launch_process(pods.relay.argv())
    until(lambda: old.child.poll() is not None or new.child.poll() is not None, "one of both to end")
    assert old.child.poll() in (None, 0), old.text()
    pods.all_served()
    if old.child.poll() is None:  # what has failed once goes well the next time
        launch_process(pods.relay.argv())
        until(lambda: old.child.poll() is not None, "the old relay to end")
        pods.all_served()
