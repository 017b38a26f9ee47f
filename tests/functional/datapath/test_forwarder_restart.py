"""A forwarder that is killed in the middle of a pod's life, and started again: real processes, TLS, sockets."""

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import frames, greeting

OK = (0, "")
UNAVAILABLE = 14
SERVING = b"\x08\x01"
WAITS = ("ReadStdout", "ReadStderr", "WaitProcess", "GetOOMEvent")
SLOW = ("ExecProcess", "WriteStdin", "StatsContainer")


@dataclass
class WaitingAgent:
    """Answers at once, but for long polls and slow calls, which wait for `say`.

    As the real one: what waits on a connection that closes is cancelled and takes nothing with it. `done` has what
    was carried out, in order.
    """

    path: Path
    done: list[str] = field(default_factory=list)
    waiting: list[tuple[socket.socket, int, str]] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        splitter = frames.Splitter(frames.REQUEST)
        try:
            while piece := sock.recv(1 << 16):
                for stream, frame in splitter.feed(piece):
                    assert isinstance(frame, bytes)
                    self._take(sock, stream, frames.Request(frame[frames.HEADER_SIZE :]))
        except OSError:
            pass
        with self._lock:
            self.waiting = [one for one in self.waiting if one[0] is not sock]
        sock.close()

    def _take(self, sock: socket.socket, stream: int, request: frames.Request) -> None:
        if request.method not in WAITS:
            self.done.append(request.method)
        if request.method in (*WAITS, *SLOW):
            with self._lock:
                self.waiting.append((sock, stream, request.method))
        else:
            sock.sendall(frames.answer(stream, request.payload))

    def pending(self) -> list[str]:
        with self._lock:
            return sorted(method for _, _, method in self.waiting)

    def say(self, method: str, payload: bytes) -> None:
        """Answer the call of this method that has waited longest."""
        with self._lock:
            found = next(one for one in self.waiting if one[2] == method)
            self.waiting.remove(found)
        found[0].sendall(frames.answer(found[1], payload))


@dataclass
class Pod:
    """A relay and a forwarder that can be killed, in front of an agent."""

    relay: Any
    agent: WaitingAgent
    start: Callable[[], Any]
    guest: Any

    def kill(self) -> None:
        self.guest.process.child.kill()
        self.guest.process.child.wait()

    def restart(self) -> None:
        self.kill()
        self.guest = self.start()


@pytest.fixture
def agent(folder: Path) -> Iterator[WaitingAgent]:
    agent = WaitingAgent(folder / "waiting.sock")
    yield agent
    agent.stop()


@pytest.fixture
def pod(start_relay: Any, start_guest: Any, agent: WaitingAgent, folder: Path) -> Pod:
    flags = ("-served-file", str(folder / "served"))
    guest = start_guest(agent.path, *flags)
    relay = start_relay()
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    return Pod(relay, agent, lambda: start_guest(agent.path, *flags, port=guest.port), guest)


@contextmanager
def connected(certificates: Any, port: int, *protocols: str) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to a forwarder, as a client of ours."""
    context = ssl.create_default_context(cafile=str(certificates.ca.file))
    context.load_cert_chain(*map(str, certificates.client))
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw) as sock:
        yield sock


def answers(shim: Any, count: int) -> dict[int, tuple[tuple[int, str], bytes]]:
    return {stream: (status, payload) for stream, status, payload in (shim.answer() for _ in range(count))}


def test_output_and_exit_code_arrive_and_nothing_is_done_twice(pod: Pod, shim: Any, until: Any) -> None:
    one = shim(pod.relay.agent_socket())
    assert one.call("StartContainer", b"c") == (OK, b"c")
    out, code, stats = (one.send(method, b"x") for method in ("ReadStdout", "WaitProcess", "StatsContainer"))
    executed, written = one.send("ExecProcess", b"x"), one.send("WriteStdin", b"x")
    until(lambda: len(pod.agent.pending()) == 5, "the calls to reach the agent")
    pod.restart()
    refused = answers(one, 2)
    assert {stream: status[0] for stream, (status, _) in refused.items()} == dict.fromkeys((executed, written), 14)
    assert all("not repeated" in status[1] for status, _ in refused.values())
    until(lambda: pod.agent.pending() == ["ReadStdout", "StatsContainer", "WaitProcess"], "the calls asked again")
    for method, payload in (("ReadStdout", b"output"), ("WaitProcess", b"code"), ("StatsContainer", b"stats")):
        pod.agent.say(method, payload)
    assert answers(one, 3) == {out: (OK, b"output"), code: (OK, b"code"), stats: (OK, b"stats")}
    assert [call for call in pod.agent.done if call != "StatsContainer"] == [
        "StartContainer",
        "ExecProcess",
        "WriteStdin",
    ]
    assert pod.agent.connections == 2
    assert one.call("Next", b"y") == (OK, b"y")
    assert "session begun anew: sandbox=pod: the forwarder was restarted: 3 calls are asked again, 2 refused" in (
        pod.relay.process.text()
    )


def test_calls_made_while_no_forwarder_is_there_are_sent_to_the_next_one(pod: Pod, shim: Any, until: Any) -> None:
    one, two = shim(pod.relay.agent_socket()), shim(pod.relay.agent_socket())
    assert one.call("First", b"1") == (OK, b"1")
    assert two.call("First", b"2") == (OK, b"2")
    pod.kill()
    until(lambda: pod.relay.links() == [("pod", False, 2)], "the link to be down")
    asked = [one.send("UpdateContainer", b"new"), two.send("CopyFile", bytes(100_000))]
    assert one.call("Check", service="grpc.Health") == (OK, SERVING)
    pod.guest = pod.start()
    assert one.answer() == (asked[0], OK, b"new")
    assert two.answer() == (asked[1], OK, bytes(100_000))
    assert pod.agent.done.count("UpdateContainer") == pod.agent.done.count("CopyFile") == 1


def test_a_check_under_way_is_answered_and_later_ones_by_the_agent(pod: Pod, shim: Any, until: Any) -> None:
    one = shim(pod.relay.agent_socket())
    assert one.call("First") == (OK, b"")
    pod.kill()
    assert one.call("Check", b"c", service="grpc.Health") == (OK, SERVING)
    pod.guest = pod.start()
    until(lambda: pod.relay.links() == [("pod", True, 1)], "the link to be back")
    assert one.call("Check", b"c", service="grpc.Health") == (OK, b"c")


def test_killed_again_and_again(pod: Pod, shim: Any, until: Any) -> None:
    shims = [shim(pod.relay.agent_socket()) for _ in range(2)]
    polls = [one.send("ReadStdout", b"x") for one in shims]
    chance = random.Random(1)
    for _ in range(8):
        time.sleep(chance.random() * 0.1)
        pod.restart()
    until(lambda: pod.agent.pending() == ["ReadStdout"] * 2, "both polls", 10)
    pod.agent.say("ReadStdout", b"first")
    pod.agent.say("ReadStdout", b"second")
    heard = [one.answer() for one in shims]
    assert [stream for stream, _, _ in heard] == polls
    assert sorted(payload for _, _, payload in heard) == [b"first", b"second"]
    assert [one.call("Echo", b"z") for one in shims] == [(OK, b"z")] * 2


def test_both_are_replaced_at_once(pod: Pod, start_relay: Any, shim: Any, until: Any) -> None:
    """The relay while there is no forwarder: its successor knows what was under way and what has never left."""
    one = shim(pod.relay.agent_socket())
    assert one.call("First") == (OK, b"")
    polled, executed = one.send("ReadStdout", b"x"), one.send("ExecProcess", b"x")
    until(lambda: len(pod.agent.pending()) == 2, "the calls to reach the agent")
    pod.kill()
    until(lambda: pod.relay.links() == [("pod", False, 1)], "the link to be down")
    late = one.send("UpdateContainer", b"late")
    time.sleep(0.1)
    successor = start_relay()
    assert pod.relay.process.child.wait(10) == 0
    pod.guest = pod.start()
    heard = answers(one, 2)
    assert heard[executed][0][0] == UNAVAILABLE
    assert heard[late] == (OK, b"late")
    until(lambda: pod.agent.pending() == ["ReadStdout"], "the poll")
    pod.agent.say("ReadStdout", b"output")
    assert one.answer() == (polled, OK, b"output")
    assert pod.agent.done.count("ExecProcess") == pod.agent.done.count("UpdateContainer") == 1
    assert "1 calls are asked again, 1 refused" in successor.process.text()


def test_an_agent_that_cannot_be_dialled_again_ends_the_pod_at_once(pod: Pod, shim: Any, until: Any) -> None:
    one = shim(pod.relay.agent_socket())
    assert one.call("First") == (OK, b"")
    pod.agent.path.unlink()  # as the real one does at CreateSandbox, if it lies in its own folder
    pod.restart()
    began = time.monotonic()
    assert one.ended()
    assert time.monotonic() - began < 3
    until(lambda: pod.relay.links() == [("pod", False, 0)], "the link to be lost")
    assert "the agent's socket is gone" in pod.relay.process.text()
    assert "the pod cannot go on" in pod.guest.process.text()
    status, _ = pod.relay.ask("Open", pod.guest.opening.payload())
    assert status[0] == UNAVAILABLE
    assert "the agent's socket is gone" in status[1]


def test_a_client_without_a_session_is_turned_away_when_the_agent_is_gone(
    pod: Pod, start_relay: Any, certificates: Any, until: Any
) -> None:
    """The reference's adaptor sees a link that closes, and so does its shim."""
    pod.agent.path.unlink()
    pod.restart()
    with connected(certificates, pod.guest.port) as sock:
        assert sock.recv(1) == b""
    until(lambda: "a client without a session" in pod.guest.process.text(), "the forwarder to say it")


def test_first_start_still_waits_for_the_agent(start_guest: Any, folder: Path, shim: Any) -> None:
    """Without the file that an earlier forwarder left, an absent agent is one that starts."""
    path = folder / "late.sock"
    made: list[WaitingAgent] = []
    threading.Timer(1.5, lambda: made.append(WaitingAgent(path))).start()
    guest = start_guest(path, "-served-file", str(folder / "other"))
    assert guest.process.child.poll() is None
    assert made
    assert (folder / "other").exists()
    made[0].stop()


def hello(certificates: Any, port: int, *, new: bool) -> tuple[int, int]:
    """Say HELLO to a forwarder by hand; kind and word of the answer."""
    with connected(certificates, port, greeting.PROTOCOL) as sock:
        sock.sendall(greeting.hello(bytes(16), bytes(32), new=new, attempt=1, count=0))
        answer = greeting.Greeting(sock.recv(greeting.GREETING))
        return answer.kind, answer.new


def test_a_relay_of_before_hears_that_its_session_is_gone(pod: Pod, certificates: Any, shim: Any, until: Any) -> None:
    """The word of GONE stands in a byte that relays before it do not read; once the agent was asked it is not said."""
    pod.restart()
    until(lambda: pod.relay.links() == [("pod", True, 0)], "the relay's own new session")
    assert hello(certificates, pod.guest.port, new=False) == (greeting.GONE, greeting.BEGIN_ANEW)
    assert hello(certificates, pod.guest.port, new=True)[0] == greeting.WELCOME
    assert shim(pod.relay.agent_socket()).call("First") == (OK, b"")
    with connected(certificates, pod.guest.port, greeting.PROTOCOL) as sock:
        sock.sendall(greeting.hello(bytes(range(16)), bytes(32), new=False, attempt=1, count=0))
        answer = greeting.Greeting(sock.recv(greeting.GREETING))
    assert (answer.kind, answer.new) == (greeting.GONE, 0)
