"""Which ids become file names, the relay's command line, and requests of the node that cannot be served."""

import sys
from pathlib import Path
from typing import Any

import pytest

import caa
from caa.datapath import edits, frames
from caa.datapath.loop import Loop
from caa.relay.commands import SERVICE, Commands
from caa.relay.launch import command
from caa.relay.stops import Stops, is_safe


@pytest.mark.parametrize("sandbox", ["a", "0" * 64, "A-b_c.d", "x" * 128])
def test_safe_ids(sandbox: str) -> None:
    assert is_safe(sandbox)


@pytest.mark.parametrize("sandbox", ["", ".", "..", ".hidden", "-x", "a/b", "a\0", "x" * 129, "é", "a b", "a\n"])
def test_unsafe_ids(sandbox: str) -> None:
    assert not is_safe(sandbox)


def test_a_stop_is_a_file_until_the_node_removes_it(tmp_path: Path) -> None:
    stops = Stops(str(tmp_path))
    assert not stops.pending("pod")
    assert stops.record(["pod"]) == {}
    assert stops.record(["pod", "other"]) == {}
    assert stops.pending("other")
    assert stops.pending("pod")
    assert (tmp_path / "pod").stat().st_mode & 0o777 == 0o600
    (tmp_path / "pod").unlink()
    assert not stops.pending("pod")


def test_a_stop_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "pod").symlink_to(tmp_path / "elsewhere")
    failed = Stops(str(tmp_path)).record(["pod", "fine"])
    assert list(failed) == ["pod"]
    assert "symbolic links" in failed["pod"]
    assert (tmp_path / "fine").exists()


def test_a_folder_that_is_gone_fails_every_stop(tmp_path: Path) -> None:
    assert set(Stops(str(tmp_path / "absent")).record(["a", "b"])) == {"a", "b"}


def test_the_command_line_runs_our_source_without_site() -> None:
    argv = command(hypervisor_socket="/h", pods_dir="/p", run_dir="/r", state_dir="/s", extra=("--niceness", "0"))
    assert argv[:4] == [sys.executable, "-I", "-S", "-c"]
    assert repr(str(Path(caa.__file__).parents[1])) in argv[4]
    assert argv[5:] == [
        "--hypervisor-socket", "/h", "--pods-dir", "/p", "--run-dir", "/r", "--state-dir", "/s", "--niceness", "0",
    ]  # fmt: skip


class PretendChannel:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)


class PretendFront:
    """Keeps what it was asked to open."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, Any, float]] = []

    def open(self, sandbox: str, target: Any, *, seconds: float, waiter: Any) -> None:
        self.opened.append((sandbox, target, seconds))
        waiter.done()

    def close(self, sandbox: str) -> None:
        raise AssertionError(f"nothing is to be closed, {sandbox!r} was")

    def links(self) -> list[Any]:
        return []


def ask(method: str, payload: bytes, service: str = SERVICE) -> tuple[PretendFront, int, str]:
    front: Any = PretendFront()
    channel: Any = PretendChannel()
    commands = Commands(Loop(), front, dial_seconds=300.0)
    commands.framed(channel, frames.call(service, method, stream=1, payload=payload))
    [frame] = channel.sent
    status = edits.last_bytes(frame[10:], 1)
    return front, edits.last_varint(status, 1), edits.last_bytes(status, 2).decode()


def opening(sandbox: str = "pod", port: int = 15150, name: str = "vm") -> bytes:
    return b"".join(
        (
            edits.bytes_field(1, sandbox.encode()),
            edits.bytes_field(2, b"10.0.0.1"),
            edits.bytes_field(2, b"fd00::1"),
            edits.varint_field(3, port),
            edits.bytes_field(4, name.encode()),
            edits.bytes_field(9, b"A,B:C"),
        )
    )


def test_open_is_read_in_full() -> None:
    front, code, _ = ask("Open", opening())
    assert code == 0
    [(sandbox, target, seconds)] = front.opened
    assert (sandbox, seconds) == ("pod", 300.0)
    assert target.addresses == ("10.0.0.1", "fd00::1")
    assert (target.port, target.server_name, target.files.ciphers) == (15150, "vm", ("A", "B", "C"))
    assert not target.skip_verify
    assert not target.disable_tls


@pytest.mark.parametrize(
    ("method", "payload", "code", "told"),
    [
        ("Open", opening(sandbox="a/b"), 3, "not a name for a folder"),
        ("Open", opening(port=0), 3, "between 1 and 65535"),
        ("Open", opening(port=70000), 3, "between 1 and 65535"),
        ("Open", opening(name=""), 3, "no server name"),
        ("Open", b"\x0a\xff", 3, "not a protobuf message"),
        ("Close", b"", 3, "not a name for a folder"),
        ("Nope", b"", 12, "does not exist"),
        ("List", b"", 0, ""),
    ],
)
def test_requests_that_cannot_be_served(method: str, payload: bytes, code: int, told: str) -> None:
    front, found, text = ask(method, payload)
    assert found == code
    assert told in text
    assert not front.opened


def test_another_service_is_not_served() -> None:
    _, code, text = ask("List", b"", service="grpc.Health")
    assert code == 12
    assert "grpc.Health" in text
