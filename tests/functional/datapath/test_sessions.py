"""Links that break: what the shim sees of it, and how it ends when the link does not come back."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import frames

OK = (0, "")
SERVING = b"\x08\x01"
HASTY = ("--link-silence-seconds", "0.8")


@pytest.fixture
def linked(start_relay: Any, start_proxy: Any, guest: Any, shim: Callable[[Path], Any]) -> Callable[..., Any]:
    """A relay with its link through a proxy; returns both and a function that makes shims."""

    def link(*flags: str) -> tuple[Any, Any, Callable[[], Any]]:
        relay, proxy = start_relay(*flags), start_proxy(guest.port)
        assert relay.ask("Open", replace(guest.opening, port=proxy.port).payload()) == (OK, b"")
        return relay, proxy, lambda: shim(relay.agent_socket())

    return link


def check(shim: Any) -> bytes:
    status, answer = shim.call("Check", b"from the agent", service="grpc.Health")
    assert status == OK
    return answer


@pytest.mark.parametrize("kind", ["rst", "fin", "rst-relay", "rst-guest"])
def test_a_cut_is_not_seen_by_the_shim(linked: Any, until: Any, kind: str) -> None:
    relay, proxy, connect = linked()
    shims = [connect(), connect()]
    assert shims[0].call("Echo", b"before") == (OK, b"before")
    assert shims[1].call("Echo", b"too") == (OK, b"too")
    waiting = [shim.send("ReadStdout", b"\x18\x80\x08") for shim in shims]
    began = time.monotonic()
    proxy.cut(kind)
    for shim, stream in zip(shims, waiting, strict=True):
        assert shim.answer() == (stream, OK, bytes(1024))
        assert shim.call("Echo", b"after") == (OK, b"after")
    assert time.monotonic() - began < 3
    until(lambda: relay.links() == [("pod", True, 2)], "the link to be listed")
    assert "link cut: sandbox=pod" in relay.process.text()
    assert "link resumed: sandbox=pod" in relay.process.text()


@pytest.mark.parametrize("kind", ["hole", "half"])
def test_a_silent_cut_is_noticed(linked: Any, until: Any, kind: str) -> None:
    relay, proxy, connect = linked(*HASTY)
    shim = connect()
    assert shim.call("Echo", b"before") == (OK, b"before")
    proxy.pause = 30
    proxy.cut(kind)
    stream = shim.send("Echo", b"into the hole")
    assert shim.answer() == (stream, OK, b"into the hole")
    assert "nothing has been heard" in relay.process.text() or "link cut" in relay.process.text()


@pytest.mark.slow
def test_by_default_an_idle_link_is_known_to_be_dead_within_ten_seconds(linked: Any, until: Any) -> None:
    relay, proxy, connect = linked()
    shim = connect()
    assert check(shim) == b"from the agent"
    proxy.dark, proxy.pause = True, 60
    proxy.cut("hole")
    began = time.monotonic()
    assert check(shim) == SERVING
    assert time.monotonic() - began < 10.5
    assert relay.links() == [("pod", False, 1)]


def test_an_idle_link_that_lives_is_left_alone(linked: Any) -> None:
    relay, _, connect = linked(*HASTY)
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    time.sleep(2.5)
    assert "link cut" not in relay.process.text()
    assert shim.call("Echo", b"x") == (OK, b"x")


def test_the_health_checks_of_a_dark_time_are_answered_here(linked: Any, until: Any, agent: Any) -> None:
    """Both shims' habits in short: a Check now and then beside calls that wait, and a second connection."""
    relay, proxy, connect = linked()
    go = connect()
    assert check(go) == b"from the agent"
    poll = go.send("ReadStdout", b"\x18\x05")
    assert go.answer() == (poll, OK, bytes(5))
    proxy.dark = True
    proxy.cut("rst")
    until(lambda: relay.links() == [("pod", False, 1)], "the link to be down")
    waiting = go.send("Echo", b"stored")
    for _ in range(12):
        assert check(go) == SERVING
        time.sleep(0.05)
    second = connect()
    assert check(second) == SERVING
    proxy.dark = False
    assert go.answer() == (waiting, OK, b"stored")
    until(lambda: relay.links() == [("pod", True, 2)], "the link to be back")
    assert check(go) == b"from the agent"
    assert check(second) == b"from the agent"
    assert second.call("Echo", b"mine") == (OK, b"mine")


def test_a_check_under_way_at_the_cut_is_answered_here_and_once(linked: Any, agent: Any, until: Any) -> None:
    _, proxy, connect = linked(*HASTY)
    one = connect()
    assert one.call("Echo", b"a") == (OK, b"a")
    slow = one.send("Pause")  # the agent reads nothing for 1.5 s
    until(lambda: any(call[3] == "Pause" for call in agent.seen), "the agent to pause")
    asked = one.send("Check", b"late", service="grpc.Health")
    time.sleep(0.1)
    proxy.dark = True
    proxy.cut("hole")
    assert one.answer() == (asked, OK, SERVING)
    time.sleep(1.5)
    proxy.dark = False
    assert one.answer() == (slow, OK, b"")
    assert one.call("Echo", b"b") == (OK, b"b")
    assert [call[3] for call in agent.seen].count("Check") == 1


def test_when_the_grace_is_over_the_shims_connections_close(linked: Any, until: Any) -> None:
    relay, proxy, connect = linked("--link-grace-seconds", "0.7")
    shims = [connect(), connect()]
    assert check(shims[0]) == b"from the agent"
    proxy.dark = True
    began = time.monotonic()
    proxy.cut("fin")
    assert all(shim.ended() for shim in shims)
    assert 0.5 < time.monotonic() - began < 3
    until(lambda: relay.links() == [("pod", False, 0)], "the link to be lost")
    assert not relay.agent_socket().exists()
    assert "link lost: sandbox=pod: pod VM podvm-test-1 at 127.0.0.1" in relay.process.text()
    assert "was not reached within 0.7 s" in relay.process.text()


def test_the_loss_of_the_agent_ends_the_link_with_the_reason(linked: Any, agent: Any, until: Any) -> None:
    relay, _, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    began = time.monotonic()
    agent.stop()
    assert shim.ended()
    assert time.monotonic() - began < 3
    until(lambda: "link lost: sandbox=pod: the forwarder has ended the session" in relay.process.text(), "the reason")


def test_a_refused_certificate_ends_the_link_at_once(linked: Any, guest: Any, certificates: Any) -> None:
    relay, proxy, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    files = guest.opening.client
    kept = [path.read_bytes() for path in files]
    try:
        for path, other in zip(files, certificates.stranger, strict=True):
            path.write_bytes(other.read_bytes())
        proxy.cut("rst")
        assert shim.ended()
    finally:
        for path, data in zip(files, kept, strict=True):
            path.write_bytes(data)
    assert "link lost" in relay.process.text()
    assert "alert" in relay.process.text()


def test_a_renewed_certificate_goes_on_with_the_session(linked: Any, guest: Any, certificates: Any) -> None:
    """Same issuer and subject, another key."""
    relay, proxy, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    certificates.ca.leaf("client", "caa", server=False)  # writes the same files again
    proxy.cut("rst")
    assert shim.call("Echo", b"y") == (OK, b"y")
    assert "link lost" not in relay.process.text()


def test_close_ends_the_session_in_the_forwarder(linked: Any, guest: Any, until: Any, agent: Any) -> None:
    relay, _, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    assert relay.close() == OK
    assert shim.ended()
    # A forwarder that still knew the sessions would refuse one of these for want of room.
    for _ in range(40):
        assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
        assert relay.close() == OK
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")


def test_a_session_nobody_comes_back_to_is_given_up(
    relay: Any, start_guest: Any, start_proxy: Any, agent: Any, shim: Any
) -> None:
    guest = start_guest(agent.path, "-session-keep-seconds", "0.5")
    proxy = start_proxy(guest.port)
    assert relay.ask("Open", replace(guest.opening, port=proxy.port).payload()) == (OK, b"")
    one = shim(relay.agent_socket())
    assert one.call("Echo", b"x") == (OK, b"x")
    proxy.dark = True
    proxy.cut("rst")
    while "session expired" not in guest.process.text():
        time.sleep(0.05)
    proxy.dark = False
    assert one.ended()
    assert "cannot go on with the session" in relay.process.text()


def test_an_open_while_the_link_is_down_waits_for_it(linked: Any, guest: Any, until: Any) -> None:
    relay, proxy, connect = linked()
    opening = replace(guest.opening, port=proxy.port).payload()
    shim = connect()
    proxy.dark = True
    proxy.cut("rst")
    until(lambda: relay.links() == [("pod", False, 1)], "the link to be down")
    status, _ = relay.ask("Open", opening, 0.6)
    assert status[0] == 4
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(relay.ask("Open", opening)))
    thread.start()
    time.sleep(0.2)
    assert not answer
    proxy.dark = False
    thread.join(10)
    assert answer == [(OK, b"")]
    assert shim.call("Echo", b"x") == (OK, b"x")


def test_requests_are_stored_up_to_a_bound_while_the_link_is_down(linked: Any, until: Any) -> None:
    relay, proxy, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    before = relay.process.status("VmRSS")
    proxy.dark = True
    proxy.cut("rst")
    until(lambda: relay.links() == [("pod", False, 1)], "the link to be down")
    payload, sent = bytes(200_000), []

    def pour() -> None:
        for number in range(60):
            sent.append((shim.send("Echo", payload + b"%d" % number), number))

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    time.sleep(1)
    assert 10 <= len(sent) <= 20  # 2 MiB, and what the sockets hold
    assert relay.process.status("VmRSS") - before < 8 << 10
    proxy.dark = False
    for number in range(60):
        stream, status, answer = shim.answer()
        assert (status, answer) == (OK, payload + b"%d" % number)
        assert stream == 2 * number + 3
    thread.join(10)


def test_answers_are_kept_up_to_a_bound_while_the_link_is_down(linked: Any, guest: Any, agent: Any, until: Any) -> None:
    _, proxy, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    pause = shim.send("Pause")
    number = 40
    streams = [shim.send("ReadStdout", b"\x18\xc0\x9a\x0c") for _ in range(number)]  # 200 000 bytes each
    time.sleep(0.3)
    before = guest.process.status("VmRSS")
    proxy.dark = True
    proxy.cut("rst")
    time.sleep(2.2)
    assert guest.process.status("VmRSS") - before < 8 << 10
    proxy.dark = False
    answers = {stream: rest for stream, *rest in (shim.answer() for _ in range(number + 1))}
    assert answers.pop(pause)[0] == OK
    assert answers == {stream: [OK, bytes(200_000)] for stream in streams}
    assert shim.call("Echo", b"y") == (OK, b"y")


def test_an_answer_of_ours_never_goes_into_the_middle_of_a_frame(linked: Any, until: Any) -> None:
    """Answers of 60 KB stream in while the link is cut; a Check in the dark is answered between two of them."""
    _, proxy, connect = linked(*HASTY)
    shim = connect()
    for _ in range(5):
        proxy.dark = False
        assert shim.call("Echo", b"x") == (OK, b"x")
        streams = [shim.send("ReadStdout", b"\x18\xe0\xd4\x03") for _ in range(30)]
        proxy.dark = True
        proxy.cut("hole")
        asked = shim.send("Check", b"z", service="grpc.Health")
        seen = []
        while asked not in seen:
            stream, status, answer = shim.answer()
            assert status == OK
            assert answer in (bytes(60_000), SERVING, b"z")
            seen.append(stream)
        proxy.dark = False
        while len(seen) < len(streams) + 1:
            seen.append(shim.answer()[0])
        assert sorted(seen) == [*streams, asked]


def test_a_stranger_with_a_certificate_of_ours_takes_no_session(
    linked: Any, guest: Any, certificates: Any, session_client: Any
) -> None:
    *_, connect = linked()
    shim = connect()
    assert shim.call("Echo", b"x") == (OK, b"x")
    mine = session_client(certificates.client)
    assert mine.hello(new=True)[0] == "welcome"
    other = certificates.ca.leaf("second", "another", server=False)
    stranger = session_client(other, identity=mine.identity, secret=mine.secret)
    assert stranger.hello(attempt=2) == ("nothing", b"")
    guesser = session_client(certificates.client, identity=mine.identity, secret=bytes(32))
    assert guesser.hello(attempt=3) == ("nothing", b"")
    replayed = session_client(certificates.client, identity=mine.identity, secret=mine.secret)
    assert replayed.hello(attempt=1)[0] == "late"
    unknown = session_client(certificates.client)
    assert unknown.hello(attempt=5)[0] == "gone"
    mine.sock.sendall(frames.call(frames.AGENT, "Echo", stream=1, payload=b"still mine"))
    assert b"still mine" in mine.sock.recv(1000)
    assert shim.call("Echo", b"y") == (OK, b"y")
