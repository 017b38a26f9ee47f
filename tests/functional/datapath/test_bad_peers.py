"""Peers that must not be served, and folders that cannot be used: the error is seen, nothing is left."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import frames
from tests.fakes.datapath.processes import Opening

OK = (0, "")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def refused(relay: Any, opening: Any, timeout: float = 10.0) -> tuple[int, str]:
    """Status of an Open that fails; nothing of it may stay behind."""
    status, _ = relay.ask("Open", opening.payload(), timeout)
    assert relay.links() == []
    assert list(relay.pods.iterdir()) == []
    return status


def test_a_server_with_the_wrong_name_is_final(relay: Any, guest: Any) -> None:
    started = time.monotonic()
    code, text = refused(relay, replace(guest.opening, name="podvm-other"))
    assert time.monotonic() - started < 3
    assert code == 16
    assert "podvm-other at 127.0.0.1" in text
    assert "Hostname mismatch" in text


def test_an_expired_server_is_final(relay: Any, start_guest: Any, agent: Any, certificates: Any) -> None:
    guest = start_guest(agent.path, server=certificates.expired)
    code, text = refused(relay, guest.opening)
    assert code == 16
    assert "podvm-test-1 at 127.0.0.1" in text
    assert "certificate has expired" in text


def test_a_server_of_another_ca_is_final(relay: Any, guest: Any, certificates: Any) -> None:
    code, text = refused(relay, replace(guest.opening, ca=certificates.other.file))
    assert code == 16
    assert "certificate verify failed" in text


def test_a_server_may_be_taken_unverified(relay: Any, start_guest: Any, agent: Any, certificates: Any) -> None:
    guest = start_guest(agent.path, server=certificates.expired)
    opening = replace(guest.opening, ca=None, name="", skip_verify=True)
    assert relay.ask("Open", opening.payload()) == (OK, b"")


@pytest.mark.parametrize("client", ["none", "stranger"])
def test_a_forwarder_that_refuses_our_certificate_is_final(
    relay: Any, guest: Any, certificates: Any, client: str
) -> None:
    opening = replace(guest.opening, client=certificates.stranger if client == "stranger" else None)
    code, text = refused(relay, opening)
    assert code == 16
    assert "podvm-test-1 at 127.0.0.1" in text
    assert "alert" in text
    assert "handshake failed" in guest.process.text()


def test_a_server_without_a_certificate_is_final(relay: Any, listener: socket.socket, certificates: Any) -> None:
    def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        sock, _ = listener.accept()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_side=True)

    thread = threading.Thread(target=serve)
    thread.start()
    code, text = refused(relay, _towards(listener, certificates))
    thread.join()
    assert code == 16
    assert "handshake failure" in text


def _towards(listener: socket.socket, certificates: Any) -> Opening:
    return Opening(listener.getsockname()[1], certificates.ca.file, certificates.client)


def test_a_silent_peer_ends_at_the_deadline_with_the_last_reason(
    relay: Any, listener: socket.socket, certificates: Any
) -> None:
    started = time.monotonic()
    code, text = refused(relay, _towards(listener, certificates), timeout=1.0)
    assert 0.9 < time.monotonic() - started < 4
    assert code == 4
    assert "podvm-test-1 at 127.0.0.1" in text
    assert "not reached within 0.9 s" in text


def test_a_refused_connection_is_tried_until_the_deadline(
    relay: Any, listener: socket.socket, certificates: Any
) -> None:
    opening = _towards(listener, certificates)
    listener.close()
    code, text = refused(relay, opening, timeout=0.8)
    assert code == 4
    assert "Connection refused" in text


def test_a_node_that_gives_up_ends_the_dial(relay: Any, listener: socket.socket, shim: Any, until: Any) -> None:
    commands = shim(relay.run / "relay.sock")
    opening = Opening(listener.getsockname()[1], disable_tls=False, ca=None)
    commands.send("Open", replace(opening, skip_verify=True).payload(), service="caa.relay.v1.AgentLinks")
    until(lambda: relay.links() == [("pod", False, 0)], "the dial")
    commands.close()
    until(lambda: relay.links() == [], "the end of the dial")


def test_files_that_cannot_be_read_are_named(relay: Any, guest: Any) -> None:
    code, text = refused(relay, replace(guest.opening, ca=Path("/nowhere/ca.pem")))
    assert code == 14
    assert "/nowhere/ca.pem" in text


def test_a_silent_client_does_not_keep_others_out(guest: Any, relay: Any) -> None:
    silent = [socket.create_connection(("127.0.0.1", guest.port)) for _ in range(5)]
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    for sock in silent:
        sock.close()


def test_a_client_that_speaks_no_tls_is_turned_away(guest: Any, until: Any) -> None:
    with socket.create_connection(("127.0.0.1", guest.port), timeout=10) as sock:
        sock.sendall(frames.call("grpc.Health", "Check", stream=1, payload=b""))
        data = b"-"
        try:
            while data:
                data = sock.recv(100)
                assert b"grpc" not in data
        except ConnectionError:
            pass
    until(lambda: "handshake failed" in guest.process.text(), "the refusal")
    assert guest.process.child.poll() is None


@pytest.mark.root
def test_another_user_is_refused(relay: Any, guest: Any, until: Any) -> None:
    """The mode keeps others out; if somebody loosens it, the kernel's note of who connects still does."""
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    sockets = [relay.hypervisor, relay.run / "relay.sock", relay.agent_socket()]
    for path in sockets:
        assert _as_another_user(path) == "PermissionError"
    for path in sockets:
        path.chmod(0o777)
        for folder in (path.parent, path.parent.parent):
            folder.chmod(0o755)
        assert _as_another_user(path) == "closed"
    until(lambda: relay.process.text().count("uid 1000 may not connect") == 3, "the refusals")


def _as_another_user(path: Path) -> str:
    program = (
        "import os, socket, sys\n"
        "os.setgid(1000); os.setuid(1000)\n"
        "sock = socket.socket(socket.AF_UNIX); sock.settimeout(5)\n"
        "try: sock.connect(sys.argv[1]); print('closed' if sock.recv(1) == b'' else 'served')\n"
        "except ConnectionError: print('closed')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    found = subprocess.run(["/usr/bin/env", sys.executable, "-I", "-S", "-c", program, str(path)],
                           capture_output=True, text=True, check=True, cwd="/")  # fmt: skip
    return found.stdout.strip()


def test_a_second_relay_is_refused_and_the_first_goes_on(relay: Any, guest: Any, launch_process: Any) -> None:
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    other_state = [part.replace(str(relay.state), str(relay.folder / "s2")) for part in relay.argv()]
    second = launch_process(other_state)
    assert second.child.wait(10) == 1
    assert "another relay already serves" in second.text()
    assert str(relay.hypervisor) in second.text()
    other_run = [part.replace(str(relay.run), str(relay.folder / "r2")) for part in relay.argv()]
    third = launch_process(other_run)
    assert third.child.wait(10) == 1
    assert "it accepts connections" in third.text()
    assert f"the relay that runs serves {relay.hypervisor} with {relay.run} and {relay.pods}" in third.text()
    assert relay.links() == [("pod", True, 0)]


def test_a_relay_that_was_killed_is_replaced(start_relay: Callable[..., Any]) -> None:
    first = start_relay()
    stale = first.agent_socket("old")
    stale.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    first.process.child.kill()
    first.process.child.wait()
    assert first.hypervisor.exists()
    second = start_relay()
    assert second.links() == []
    assert second.close("old") == OK
    assert not stale.parent.exists(), "what the killed one left behind goes with its sandbox"


def test_nothing_is_left_when_the_relay_stops(relay: Any, guest: Any) -> None:
    assert relay.ask("Open", guest.opening.payload()) == (OK, b"")
    assert relay.process.stop() == 0
    left = [path for path in relay.folder.rglob("*") if path.is_file() or path.is_socket()]
    assert {path.name for path in left} == {"relay-0.log", "forwarder-0.log", "agent.sock"}


@pytest.mark.parametrize("which", ["pods-dir", "run-dir", "state-dir"])
def test_a_folder_that_cannot_be_written_is_a_clear_error(folder: Path, launch_process: Any, which: str) -> None:
    from caa.relay.launch import command  # noqa: PLC0415  # only here

    argv = command(
        hypervisor_socket=f"{folder}/h.sock",
        pods_dir=f"{folder}/p",
        run_dir=f"{folder}/r",
        state_dir=f"{folder}/s",
        extra=(f"--{which}", "/proc/self/nope"),
    )
    process = launch_process(argv)
    assert process.child.wait(10) == 1
    assert f"--{which} /proc/self/nope is not a folder we can write to" in process.text()
    assert not Path(f"{folder}/h.sock").exists()


def test_a_pod_folder_that_cannot_be_made_is_the_answer(relay: Any, guest: Any) -> None:
    (relay.pods / "pod").write_text("in the way")
    (code, text), _ = relay.ask("Open", guest.opening.payload())
    assert code == 13
    assert f"cannot listen in {relay.pods}/pod" in text
    assert relay.links() == []


def test_a_wrong_flag_is_a_clear_error(launch_process: Any, relay: Any) -> None:
    process = launch_process([*relay.argv(), "--nope"])
    assert process.child.wait(10) == 2
    assert "unknown flag '--nope'" in process.text()


def test_the_forwarder_says_why_it_cannot_start(start_guest: Any, agent: Any, folder: Path, certificates: Any) -> None:
    late = start_guest(folder / "none.sock", "-agent-timeout-seconds", "0.3")
    assert late.process.child.wait(10) == 1
    assert "no agent at" in late.process.text()
    keyless = start_guest(agent.path, "-cert-key", "/nowhere/key")
    assert keyless.process.child.wait(10) == 1
    assert "/nowhere/key" in keyless.process.text()
    wrong = start_guest(agent.path, "-listen", "nowhere")
    assert wrong.process.child.wait(10) == 1
    assert "-listen nowhere" in wrong.process.text()
    version = start_guest(agent.path, "-tls-min-version", "VersionTLS10")
    assert version.process.child.wait(10) == 1
    assert "VersionTLS10" in version.process.text()


def test_the_minimum_version_is_kept(start_guest: Any, agent: Any, certificates: Any, relay: Any) -> None:
    guest = start_guest(agent.path, "-tls-min-version", "VersionTLS13")
    context = ssl.create_default_context(cafile=str(certificates.ca.file))
    context.load_cert_chain(*map(str, certificates.client))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", guest.port), timeout=10) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        context.wrap_socket(raw, server_hostname="podvm-test-1")
    assert relay.ask("Open", replace(guest.opening, version="VersionTLS13").payload()) == (OK, b"")


def test_ready_is_told_when_it_listens(start_guest: Any, agent: Any, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.settimeout(10)
        start_guest(agent.path, "-notify-socket", str(folder / "notify"))
        assert sock.recv(100) == b"READY=1"
    assert os.path.exists(agent.path)  # noqa: PTH110  # a socket
