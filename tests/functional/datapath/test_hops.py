"""Both hops with TLS between them: life, sharing of the agent's connection, bad frames, slow readers, ends."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import edits, frames
from caa.wire.proto import agent as kata

OK = (0, "")


@pytest.fixture
def pod(relay: Any, guest: Any, shim: Callable[[Path], Any]) -> Callable[[], Any]:
    """Opens the link; each call of it is one more connection of the shim."""
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    return lambda: shim(relay.agent_socket())


def test_calls_pass_and_the_link_is_listed(pod: Any, relay: Any) -> None:
    one = pod()
    assert one.call("Echo", b"hello") == (OK, b"hello")
    assert one.call("Check", service="grpc.Health") == (OK, b"")
    assert relay.links() == [("pod", True, 1)]
    assert relay.agent_socket().stat().st_mode & 0o777 == 0o600
    assert relay.agent_socket().parent.stat().st_mode & 0o777 == 0o700
    assert relay.hypervisor.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, 1, 16_374, 16_384, 131_072, 1 << 20, 3 << 20, (4 << 20) - 100])
def test_sizes_both_ways(pod: Any, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert pod().call("Echo", payload) == (OK, payload)


def test_opening_twice_is_once_and_closing_removes_all(pod: Any, relay: Any, guest: Any, until: Any) -> None:
    one = pod()
    assert one.call("Echo", b"a") == (OK, b"a")
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    assert one.call("Echo", b"b") == (OK, b"b"), "the link is still the same"
    assert relay.close() == OK
    assert one.ended()
    assert relay.links() == []
    assert list(relay.pods.iterdir()) == []
    assert relay.close() == OK


def test_a_second_connection_shares_the_agents_one(pod: Any, agent: Any) -> None:
    first, idle, second = pod(), pod(), pod()
    for shim in (first, second, first, second):
        assert shim.call("GetGuestDetails", b"x") == (OK, b"x")
    assert [(number, stream) for number, stream, *_ in agent.seen] == [(1, 1), (1, 3), (1, 5), (1, 7)]
    idle.close()
    assert first.call("Echo", b"y") == (OK, b"y")


def test_a_late_connection_after_calls_that_never_ended(pod: Any, agent: Any, until: Any) -> None:
    first = pod()
    first.send("Never")
    until(lambda: bool(agent.seen), "the call to arrive")
    first.close()
    late = pod()
    assert late.call("Echo", b"late") == (OK, b"late")
    assert late.call("GetOOMEvent", b"q") == (OK, b"q")
    assert agent.seen[-1][:2] == (1, 5)


def test_the_guest_edits_what_it_must(pod: Any, agent: Any, folder: Path) -> None:
    shim = pod()
    sandbox = kata.CreateSandboxRequest(hostname="h", dns=["nameserver 1.2.3.4"], sandbox_id="s")
    assert shim.call("CreateSandbox", sandbox.SerializeToString())[0] == OK
    request = kata.CreateContainerRequest(container_id="c")
    missing, present = folder / "made" / "by" / "us", folder / "file"
    present.write_text("kept")
    for source in (missing, present):
        request.OCI.Mounts.add(destination="/d", source=str(source), type="bind", options=["rbind"])
    usual = request.SerializeToString()
    assert shim.call("CreateContainer", usual)[0] == OK
    body = b"".join(
        (
            edits.bytes_field(3, usual),
            edits.bytes_field(5, b"\x0a\x01k"),
            edits.bytes_field(2, b"CreateContainer"),
            edits.bytes_field(1, b"grpc.AgentService"),
        )
    )
    shim.sock.sendall(frames.frame(99, body, kind=1))
    assert shim.answer()[:2] == (99, OK)
    assert missing.is_dir()
    assert missing.stat().st_mode & 0o777 == 0o755
    assert present.read_text() == "kept"
    seen = kata.CreateSandboxRequest.FromString(agent.seen[0][4])
    assert (seen.hostname, list(seen.dns), seen.sandbox_id) == ("h", [], "s")
    for _, _, _, method, payload in agent.seen[1:]:
        assert method == "CreateContainer"
        spaces = kata.CreateContainerRequest.FromString(payload).OCI.Linux.Namespaces
        assert [(one.Type, one.Path) for one in spaces] == [("network", "/run/netns/podns")]


def test_a_request_that_cannot_be_edited_is_answered(pod: Any, agent: Any) -> None:
    shim = pod()
    (code, text), _ = shim.call("CreateContainer", edits.bytes_field(6, b"\xff\xff"))
    assert code == 3
    assert "not a protobuf message" in text
    request = kata.CreateContainerRequest(container_id="c")
    request.OCI.Mounts.add(destination="/d", source="/proc/nope/below", type="bind")
    (code, text), _ = shim.call("CreateContainer", request.SerializeToString())
    assert code == 13
    assert "/proc/nope/below" in text
    assert shim.call("Echo", b"goes on") == (OK, b"goes on")
    assert agent.seen == []


def test_a_frame_of_five_mebibytes_is_refused_and_the_next_call_passes(pod: Any, relay: Any) -> None:
    shim = pod()
    before = relay.process.status("VmHWM")
    shim.sock.sendall(struct.pack(">IIBB", 5 << 20, 1, 1, 0) + bytes(5 << 20))
    stream, (code, text), _ = shim.answer()
    assert (stream, code) == (1, 8)
    assert "exceed maximum message size" in text
    assert relay.process.status("VmHWM") - before < 2048, "the body was not stored"
    shim.last = 1
    assert shim.call("Echo", b"next") == (OK, b"next")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">IIBB", 1 << 31, 1, 1, 0),
        struct.pack(">IIBB", 0, 1, 9, 0),
        struct.pack(">IIBB", 0, 2, 1, 0),
        struct.pack(">IIBB", 0, 1, 2, 0),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_a_malformed_frame_ends_that_connection_only(pod: Any, relay: Any, header: bytes) -> None:
    good, bad = pod(), pod()
    assert good.call("Echo", b"a") == (OK, b"a")
    bad.sock.sendall(header)
    assert bad.ended()
    assert good.call("Echo", b"b") == (OK, b"b")
    assert "malformed" in relay.process.text()
    assert relay.links() == [("pod", True, 1)]


def test_a_payload_that_is_no_protobuf_passes_unless_it_is_to_be_edited(pod: Any) -> None:
    shim = pod()
    assert shim.call("Echo", b"\xff" * 100) == (OK, b"\xff" * 100)


def test_a_shim_that_dies_in_the_middle_of_a_frame_hurts_nobody(pod: Any, agent: Any) -> None:
    good = pod()
    assert good.call("Echo", b"a") == (OK, b"a")
    for cut in (3, 10, 40, 60_000, 900_000):
        dying = pod()
        dying.sock.sendall(frames.call(frames.AGENT, "CopyFile", stream=1, payload=b"x" * 1_000_000)[:cut])
        dying.close()
        assert good.call("Echo", b"b" * cut) == (OK, b"b" * cut)
    assert len(agent.connections) == 1


def test_a_slow_reader_costs_neither_memory_nor_processor(pod: Any, relay: Any, guest: Any, until: Any) -> None:
    shim = pod()
    sizes = [3 << 20] * 20
    for size in sizes:
        shim.send("ReadStdout", edits.varint_field(3, size))
    time.sleep(0.5)
    spent = _processor_seconds(relay.process.pid), _processor_seconds(guest.process.pid)
    time.sleep(1.0)
    assert _processor_seconds(relay.process.pid) - spent[0] < 0.05, "the relay spins"
    assert _processor_seconds(guest.process.pid) - spent[1] < 0.05, "the forwarder spins"
    assert relay.process.status("VmRSS") < 40_000
    assert guest.process.status("VmRSS") < 40_000
    got = sorted(shim.answer() for _ in sizes)
    assert [(stream, status) for stream, status, _ in got] == [(number, OK) for number in range(1, 41, 2)]
    assert all(payload == bytes(size) for (_, _, payload), size in zip(got, sizes, strict=True))


def test_an_agent_that_reads_slowly_stops_the_shims(pod: Any, relay: Any, guest: Any) -> None:
    waiting, writers = pod(), [pod() for _ in range(3)]
    waiting.send("Pause")
    payload = bytes(range(256)) * 4096
    got: list[list[Any]] = [[] for _ in writers]

    def write(shim: Any, answers: list[Any]) -> None:
        reader = threading.Thread(target=lambda: answers.extend(shim.answer() for _ in range(12)))
        reader.start()
        for _ in range(12):
            shim.send("Echo", payload)
        reader.join(30)

    threads = [threading.Thread(target=write, args=pair) for pair in zip(writers, got, strict=True)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    spent = _processor_seconds(relay.process.pid) + _processor_seconds(guest.process.pid)
    time.sleep(0.5)
    assert _processor_seconds(relay.process.pid) + _processor_seconds(guest.process.pid) - spent < 0.05, "it spins"
    assert relay.process.status("VmRSS") < 40_000
    assert guest.process.status("VmRSS") < 40_000
    for thread in threads:
        thread.join(40)
    expected = [(number, OK, payload) for number in range(1, 25, 2)]
    assert [sorted(answers) for answers in got] == [expected] * 3
    assert waiting.answer()[1] == OK


def _processor_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_a_slow_reader_that_leaves_frees_its_neighbour(pod: Any) -> None:
    good, slow = pod(), pod()
    assert good.call("Echo", b"a") == (OK, b"a")
    for _ in range(10):
        slow.send("ReadStdout", edits.varint_field(3, 3 << 20))
    time.sleep(0.3)
    slow.close()
    assert good.call("Echo", b"b") == (OK, b"b")


def test_many_connections_at_once_share_the_link(pod: Any) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            shim = pod()
            for place in range(60):
                payload = b"%d-%d" % (number, place) * (1 + place * 40)
                assert shim.call("Echo", payload) == (OK, payload)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("flags", [("--no-session",), ("--link-grace-seconds", "0")])
def test_without_sessions_the_loss_of_the_vm_ends_the_shims_connections(
    start_relay: Any, shim: Any, guest: Any, until: Any, flags: tuple[str, ...]
) -> None:
    relay = start_relay(*flags)
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    one = shim(relay.agent_socket())
    assert one.call("Echo", b"a") == (OK, b"a")
    guest.process.child.kill()
    guest.process.child.wait()
    assert one.ended()
    until(lambda: relay.links() == [("pod", False, 0)], "the link to be lost")
    assert not relay.agent_socket().exists()
    assert "link lost: sandbox=pod" in relay.process.text()


def test_a_lost_link_can_be_opened_again(pod: Any, relay: Any, guest: Any, start_guest: Any, until: Any) -> None:
    pod()
    guest.process.child.kill()
    guest.process.child.wait()
    until(lambda: relay.links() == [("pod", False, 1)], "the link to be down")
    other = start_guest(relay.folder / "agent.sock")
    assert relay.ask("Open", other.opening.payload()) == (OK, b"")
    assert pod().call("Echo", b"back") == (OK, b"back")
    assert relay.links() == [("pod", True, 1)]


def test_the_loss_of_the_agent_ends_the_forwarder(pod: Any, guest: Any, agent: Any) -> None:
    shim = pod()
    assert shim.call("Echo", b"a") == (OK, b"a")
    agent.stop()
    assert shim.ended()
    assert guest.process.child.wait(10) == 1
    assert "agent lost" in guest.process.text()


def test_without_tls_and_over_ipv6(start_guest: Any, relay: Any, agent: Any, shim: Any) -> None:
    clear = start_guest(agent.path, "-disable-tls")
    opening = replace(clear.opening, ca=None, client=None, disable_tls=True, sandbox="clear")
    assert relay.ask("Open", opening.payload()) == (OK, b"")
    assert shim(relay.agent_socket("clear")).call("Echo", b"x") == (OK, b"x")
    six = start_guest(agent.path, host="::1")
    assert relay.ask("Open", replace(six.opening, sandbox="six").payload()) == (OK, b"")
    assert shim(relay.agent_socket("six")).call("Echo", b"y") == (OK, b"y")


def test_the_addresses_are_tried_in_turn_until_one_answers(relay: Any, guest: Any, shim: Any) -> None:
    opening = replace(guest.opening, addresses=("127.0.0.9", "::1", "127.0.0.1"))
    started = time.monotonic()
    assert relay.ask("Open", opening.payload()) == (OK, b"")
    assert time.monotonic() - started < 2
    assert shim(relay.agent_socket()).call("Echo", b"x") == (OK, b"x")


def test_the_relay_waits_for_a_vm_that_is_still_starting(relay: Any, start_guest: Any, agent: Any) -> None:
    early = start_guest(agent.path)
    early.process.stop()
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(relay.ask("Open", early.opening.payload())))
    thread.start()
    time.sleep(0.4)
    assert not answer
    again = start_guest(agent.path, port=early.port)
    thread.join(10)
    assert answer == [(OK, b"")]
    assert again.process.child.poll() is None


def test_a_plain_client_without_alpn_is_served(guest: Any, certificates: Any) -> None:
    """As the reference's proxy dials: TLS, mutual certificates, no ALPN, then ttrpc."""
    import ssl  # noqa: PLC0415  # only this test speaks TLS itself

    context = ssl.create_default_context(cafile=str(certificates.ca.file))
    context.load_cert_chain(*map(str, certificates.client))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", guest.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="podvm-test-1") as sock,
        ):
            sock.sendall(frames.call("grpc.Health", "Check", stream=1, payload=b"x"))
            header = sock.recv(10)
            size, stream, kind, _ = struct.unpack(">IIBB", header)
            assert (stream, kind) == (1, 2)
            body = b""
            while len(body) < size:
                body += sock.recv(size - len(body))
            assert edits.last_bytes(body, 2) == b"x"
            assert sock.selected_alpn_protocol() is None
