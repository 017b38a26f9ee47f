"""A relay that takes over from another one: what shims, agents and the node see of it, which is nothing."""

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from caa.datapath import edits, frames

OK = (0, "")


@dataclass
class Opener:
    """Opens a link of this name to the guest."""

    guest: Any

    def __call__(self, relay: Any, sandbox: str = "pod", **changes: Any) -> None:
        assert relay.ask("Open", replace(self.guest.opening, sandbox=sandbox, **changes).payload()) == (OK, b"")


@pytest.fixture
def open_pod(guest: Any) -> Opener:
    return Opener(guest)


def ended(relay: Any) -> int:
    """The status of a relay that ends by itself."""
    return int(relay.process.child.wait(10))


def test_calls_go_on_over_the_connection_that_the_shim_has(start_relay: Any, open_pod: Any, shim: Any) -> None:
    old = start_relay()
    open_pod(old)
    one = shim(old.agent_socket())
    assert one.call("Echo", b"before") == (OK, b"before")
    new = start_relay()
    assert ended(old) == 0
    assert one.call("Echo", b"after") == (OK, b"after")
    assert new.links() == [("pod", True, 1)]
    assert "took over from another relay: 1 links" in new.process.text()


def test_a_call_under_way_gets_its_answer_from_the_new_relay(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any, until: Any
) -> None:
    old = start_relay()
    open_pod(old)
    shims = [shim(old.agent_socket()) for _ in range(2)]
    for one in shims:
        assert one.call("Echo", b"x") == (OK, b"x")
    waiting = [one.send("Pause", bytes([number])) for number, one in enumerate(shims)]
    until(lambda: any(call[3] == "Pause" for call in agent.seen), "the agent to pause")
    start_relay()
    assert ended(old) == 0
    for number, (one, stream) in enumerate(zip(shims, waiting, strict=True)):
        assert one.answer() == (stream, OK, bytes([number]))
    assert [call[3] for call in agent.seen] == ["Pause", "Pause"], "a call was repeated"


def test_half_a_request_and_an_answer_that_nobody_reads_move_too(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any, until: Any
) -> None:
    old = start_relay()
    open_pod(old)
    one = shim(old.agent_socket())
    size = 3 << 20
    stream = one.send("ReadStdout", edits.varint_field(3, size))
    until(lambda: agent.seen, "the request to arrive")
    time.sleep(0.3)  # what the socket takes is in it, the rest waits in the relay
    request = frames.call(frames.AGENT, "Echo", stream=3, payload=b"h" * 1000)
    one.sock.sendall(request[:500])
    time.sleep(0.1)
    start_relay()
    assert ended(old) == 0
    one.sock.sendall(request[500:])
    assert one.answer() == (stream, OK, bytes(size))
    assert one.answer() == (3, OK, b"h" * 1000)


def test_streams_of_many_pods_lose_no_byte_over_ten_relays(start_relay: Any, open_pod: Any, shim: Any) -> None:
    relay = start_relay()
    pods = [f"pod{number}" for number in range(8)]
    for pod in pods:
        open_pod(relay, pod)
    over = threading.Event()
    longest: list[float] = []
    failures: list[str] = []

    def work(pod: str) -> None:
        one, count = shim(relay.agent_socket(pod)), 0
        slowest = 0.0
        while not over.is_set():
            count += 1
            said = f"{pod} {count} ".encode() * (1 + count % 3000)
            began = time.monotonic()
            if one.call("Echo", said) != (OK, said):
                failures.append(f"{pod}: call {count}")
                return
            slowest = max(slowest, time.monotonic() - began)
        longest.append(slowest)

    threads = [threading.Thread(target=work, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.2)
        relay, old = start_relay(), relay
        assert ended(old) == 0
    over.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert len(longest) == len(pods)
    assert sorted(link[:2] for link in relay.links()) == [(pod, True) for pod in pods]


def test_what_was_lost_or_down_before_is_so_afterwards(
    open_pod: Any, start_relay: Any, start_proxy: Any, shim: Any, until: Any
) -> None:
    guest = open_pod.guest
    old, proxy = start_relay("--link-silence-seconds", "0.8"), start_proxy(guest.port)
    open_pod(old, "dark", port=proxy.port)
    one = shim(old.agent_socket("dark"))
    assert one.call("Echo", b"x") == (OK, b"x")
    proxy.dark = True
    proxy.cut("rst")
    until(lambda: old.links() == [("dark", False, 1)], "the link to be down")
    waiting = one.send("Echo", b"stored in the old relay")
    new = start_relay("--link-silence-seconds", "0.8")
    assert ended(old) == 0
    assert one.call("Check", service="grpc.Health")[0] == OK
    proxy.dark = False
    assert one.answer() == (waiting, OK, b"stored in the old relay")
    until(lambda: new.links() == [("dark", True, 1)], "the link to be back")


def test_a_link_that_is_still_dialled_is_dialled_by_the_new_relay(
    start_relay: Any, guest: Any, start_proxy: Any, shim: Any
) -> None:
    old, proxy = start_relay(), start_proxy(guest.port)
    proxy.dark = True
    node = shim(old.run / "relay.sock")
    opening = replace(guest.opening, port=proxy.port).payload()
    asked = node.send("Open", opening, service="caa.relay.v1.AgentLinks", timeout=10**10)
    time.sleep(0.2)
    new = start_relay()
    assert ended(old) == 0
    proxy.dark = False
    assert node.answer() == (asked, OK, b"")
    assert new.links() == [("pod", True, 0)]


def test_the_node_s_calls_of_shims_move_with_both_connections(start_relay: Any, shim: Any, launch_node: Any) -> None:
    old = start_relay()
    node = launch_node(old)
    one = shim(old.hypervisor)
    asked = one.send("CreateVM", b"\x0a\x01x", service="hypervisor.Hypervisor")
    connection, stream = node.next_call()
    start_relay()
    assert ended(old) == 0
    connection.sendall(frames.answer(stream, b"made"))
    assert one.answer() == (asked, OK, b"made")


def test_a_stop_that_waits_for_the_node_is_not_lost(start_relay: Any, shim: Any, launch_node: Any, until: Any) -> None:
    old = start_relay()
    one = shim(old.hypervisor)
    stop = edits.bytes_field(1, b"sandbox1")
    assert one.call("StopVM", stop, service="hypervisor.Hypervisor") == (OK, b"")
    assert (old.state / "stops" / "sandbox1").exists()
    new = start_relay()
    assert ended(old) == 0
    node = launch_node(new)
    connection, stream = node.next_call()
    connection.sendall(frames.answer(stream))


@pytest.mark.parametrize("step", range(1, 9))
def test_a_successor_that_dies_half_way_leaves_the_old_one_serving(
    start_relay: Any, open_pod: Any, shim: Any, heir: Any, step: int
) -> None:
    old = start_relay()
    pods = ["one", "two", "three"]
    for pod in pods:
        open_pod(old, pod)
    shims = {pod: shim(old.agent_socket(pod)) for pod in pods}
    for pod, one in shims.items():
        assert one.call("Echo", pod.encode()) == (OK, pod.encode())
    waiting = {pod: one.send("Echo", b"waiting") for pod, one in shims.items()}
    given = heir(old).go(step)
    for pod, one in shims.items():
        if pod not in given:
            assert one.answer() == (waiting[pod], OK, b"waiting")
            assert one.call("Echo", b"on") == (OK, b"on")
    assert old.process.child.poll() is None
    assert shim(old.hypervisor)
    left = [pod for pod in pods if pod not in given]
    assert sorted(link[0] for link in old.links()) == sorted(left)
    start_relay()
    assert ended(old) == 0
    for pod in left:
        assert shims[pod].call("Echo", b"moved") == (OK, b"moved")


def test_a_successor_of_an_unknown_format_is_refused(start_relay: Any, heir: Any, open_pod: Any, shim: Any) -> None:
    old = start_relay()
    open_pod(old)
    one = shim(old.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    said = heir(old).hello(7, 9)
    assert "no common format: the successor knows 7 to 9, this relay 1 to 1" in said
    assert one.call("Echo", b"y") == (OK, b"y")


def test_a_successor_that_also_knows_a_newer_format_speaks_ours(start_relay: Any, heir: Any) -> None:
    assert heir(start_relay()).hello(1, 2) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_told_to_end_it_waits_for_a_successor_while_shims_are_attached(
    start_relay: Any, open_pod: Any, shim: Any, wait: bool
) -> None:
    old = start_relay("--successor-wait-seconds", "20" if wait else "0")
    open_pod(old)
    one = shim(old.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    os.kill(old.process.pid, signal.SIGTERM)
    if wait:
        assert one.call("Echo", b"still") == (OK, b"still")
        start_relay()
        assert ended(old) == 0
        assert one.call("Echo", b"here") == (OK, b"here")
    else:
        assert one.ended()
        assert ended(old) == 0


def test_told_to_end_it_ends_with_the_last_shim(start_relay: Any, open_pod: Any, shim: Any) -> None:
    old = start_relay("--successor-wait-seconds", "20")
    open_pod(old)
    one = shim(old.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    os.kill(old.process.pid, signal.SIGTERM)
    assert one.call("Echo", b"y") == (OK, b"y")
    one.close()
    assert ended(old) == 0
    assert not old.hypervisor.exists()


@pytest.mark.parametrize("delay", [0.08, 0.1, 0.12, 0.14, 0.16])
def test_when_the_old_relay_is_killed_half_way_the_new_one_serves_what_came(
    start_relay: Any, open_pod: Any, shim: Any, delay: float
) -> None:
    """Killed at a random moment: a pod is with the new relay, or its connection has ended; the node is served."""
    old = start_relay()
    for number in range(20):
        open_pod(old, f"pod{number}")
    shims = [shim(old.agent_socket(f"pod{number}")) for number in range(20)]
    for one in shims:
        assert one.call("Echo", b"x") == (OK, b"x")
    threading.Timer(delay, lambda: old.process.child.send_signal(signal.SIGKILL)).start()
    new = start_relay()
    old.process.child.wait(10)
    assert shim(new.hypervisor)
    served = {name: shims for name, up, shims in new.links() if up}
    for number, one in enumerate(shims):
        if f"pod{number}" in served:
            assert one.call("Echo", b"y") == (OK, b"y")
        else:
            assert one.ended()


def test_without_a_session_polls_are_asked_again_and_other_calls_end_with_unavailable(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any, until: Any
) -> None:
    old = start_relay("--no-session")
    open_pod(old)
    one, two = shim(old.agent_socket()), shim(old.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    assert two.call("Echo", b"x") == (OK, b"x")
    agent.mute = True
    poll = one.send("ReadStdout", edits.varint_field(3, 7))
    start = one.send("StartContainer", b"once")
    other = two.send("WaitProcess", b"two")
    until(lambda: len(agent.seen) == 3, "the calls to arrive")
    agent.mute = False
    new = start_relay("--no-session")
    assert ended(old) == 0
    answers = {stream: (status, data) for stream, status, data in (one.answer(), one.answer())}
    assert answers[poll] == (OK, bytes(7))
    assert answers[start][0][0] == frames.UNAVAILABLE
    assert "not repeated" in answers[start][0][1]
    assert two.answer() == (other, OK, b"two")
    assert [call[3] for call in agent.seen if call[3] == "StartContainer"] == ["StartContainer"]
    assert one.call("Echo", b"after") == (OK, b"after")
    assert new.links() == [("pod", True, 2)]


def test_without_a_session_streams_of_answers_are_not_torn(start_relay: Any, open_pod: Any, shim: Any) -> None:
    relay = start_relay("--no-session")
    open_pod(relay)
    one = shim(relay.agent_socket())
    size = 200_000
    streams = [one.send("ReadStdout", edits.varint_field(3, size)) for _ in range(200)]
    answers: list[Any] = []
    reader = threading.Thread(target=lambda: answers.extend(one.answer() for _ in streams))
    reader.start()
    new = start_relay("--no-session")
    assert ended(relay) == 0
    reader.join(20)
    assert sorted(answers) == [(stream, OK, bytes(size)) for stream in streams]
    assert new.links() == [("pod", True, 1)]


@pytest.mark.parametrize("flags", [("--no-session", ""), ("", "--no-session")], ids=["turned on", "turned off"])
def test_sessions_that_are_turned_on_or_off_by_a_new_relay_cost_no_pod(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any, flags: tuple[str, str]
) -> None:
    before, after = (tuple(filter(None, (flag,))) for flag in flags)
    old = start_relay(*before)
    open_pod(old)
    one = shim(old.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    new = start_relay(*after)
    assert ended(old) == 0
    for _ in range(3):
        assert one.call("Echo", b"y") == (OK, b"y")
    open_pod(new, "other")
    assert shim(new.agent_socket("other")).call("Echo", b"z") == (OK, b"z")


def test_a_relay_that_comes_while_another_one_takes_over_changes_nothing(
    start_relay: Any, heir: Any, open_pod: Any, shim: Any
) -> None:
    old = start_relay()
    open_pod(old, "one")
    one = shim(old.agent_socket("one"))
    assert one.call("Echo", b"x") == (OK, b"x")
    first = heir(old)
    first.say(1, b"\x08\x01\x10\x01")
    assert first.hear()[0] == 2
    first.say(6)
    assert first.hear()[0] == 7
    heir(old).sock.close()  # gone before it could be refused
    assert heir(old).hear() == (3, edits.bytes_field(1, b"another relay is taking over already"))
    first.say(8, edits.bytes_field(1, b"one"))
    assert first.hear()[0] == 9
    sent = one.send("Echo", b"y")
    one.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        one.answer()  # it stands still: the first successor has it
    first.sock.close()
    one.sock.settimeout(20)
    assert one.answer() == (sent, OK, b"y")
