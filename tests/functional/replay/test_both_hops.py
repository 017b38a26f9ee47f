"""The recorded agent conversations through relay and forwarder: byte for byte, edits aside, both shims, faults too."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caa.testing import traces
from caa.testing.traces import Event, Frame
from caa.wire.frames import HEADER, FrameType
from caa.wire.proto import agent
from caa.wire.proto.ttrpc import KeyValue, Request, Response, Status
from podvm import rewrites

TRACES = Path(__file__).parents[2] / "data" / "traces"
EDITED = {"CreateContainer", "CreateSandbox"}


def _with_agent() -> list[str]:
    found = []
    for path in sorted(TRACES.glob("*.jsonl")):
        if any(isinstance(entry, Frame) and entry.side == "agent" for entry in traces.read(path)):
            found.append(path.stem)
    return found


def _body(frame: Frame) -> bytes:
    """The payload as long as it was; what the recording cut off is filled."""
    return frame.payload + b"\x7f" * (frame.size - len(frame.payload))


def _encoded(frame: Frame, stream: int) -> bytes:
    """The frame as the shim or the agent sent it."""
    if frame.to_agent:
        pairs = [KeyValue(key=key, value=value) for key, value in frame.metadata]
        envelope = Request(
            service=frame.service, method=frame.method, payload=_body(frame), timeout_nano=frame.timeout_nano,
            metadata=pairs,
        ).SerializeToString()  # fmt: skip
        return HEADER.pack(len(envelope), stream, FrameType.REQUEST, 0) + envelope
    status = None if frame.status is None else Status(code=frame.status[0], message=frame.status[1])
    answer = Response(status=status, payload=_body(frame)).SerializeToString()
    return HEADER.pack(len(answer), stream, FrameType.RESPONSE, 0) + answer


@dataclass
class Player:
    """Plays one recording: what the shim sent is sent, and what comes out at the other end is compared."""

    hops: Any  # the fixture's
    shims: dict[int, Any] = field(default_factory=dict)
    streams: dict[tuple[int, int], int] = field(default_factory=dict)  # (connection, stream) -> stream at the agent
    unreadable: set[tuple[int, int]] = field(default_factory=set)  # cut requests that would have to be edited
    compared: int = 0

    def play(self, recording: list[Frame | Event]) -> None:
        for entry in recording:
            if entry.side != "agent":
                continue
            if isinstance(entry, Frame):
                self._frame(entry)
            elif entry.name == "open":
                self.shims[entry.connection] = self.hops.dial()
            elif entry.name == "close":
                self.shims.pop(entry.connection).close()

    def _frame(self, frame: Frame) -> None:
        if frame.connection not in self.shims:  # the recorder accepted it without an "open" of its own
            self.shims[frame.connection] = self.hops.dial()
        key = (frame.connection, frame.stream)
        if frame.to_agent and frame.cut and frame.method in EDITED:
            self.unreadable.add(key)
        if key in self.unreadable:
            return
        if frame.to_agent:
            self._request(frame)
        else:
            self._answer(frame)
        self.compared += 1

    def _request(self, frame: Frame) -> None:
        sent = _encoded(frame, frame.stream)
        self.shims[frame.connection].send(sent)
        got = self.hops.agent.receive()
        _, stream, kind, flags = HEADER.unpack_from(got)
        assert (kind, flags, stream % 2) == (FrameType.REQUEST, 0, 1)
        self.streams[frame.connection, frame.stream] = stream
        if frame.method in EDITED:
            _compare_edited(frame, Request.FromString(got[HEADER.size :]))
        else:
            assert got[HEADER.size :] == sent[HEADER.size :], frame.method

    def _answer(self, frame: Frame) -> None:
        stream = self.streams.pop((frame.connection, frame.stream))
        self.hops.agent.send(_encoded(frame, stream))
        assert self.shims[frame.connection].receive() == _encoded(frame, frame.stream), frame.method


def _compare_edited(frame: Frame, got: Request) -> None:
    """The edit and nothing else: undone on what the agent got, the message is what the shim sent."""
    assert (got.service, got.method, got.timeout_nano) == (frame.service, frame.method, frame.timeout_nano)
    assert tuple((pair.key, pair.value) for pair in got.metadata) == frame.metadata
    if frame.method == "CreateSandbox":
        wanted = agent.CreateSandboxRequest.FromString(frame.payload)
        wanted.ClearField("dns")
        assert agent.CreateSandboxRequest.FromString(got.payload) == wanted
        return
    container = agent.CreateContainerRequest.FromString(got.payload)
    added = container.OCI.Linux.Namespaces.pop()
    assert (added.Type, added.Path) == ("network", "/run/netns/podns")
    assert container == agent.CreateContainerRequest.FromString(frame.payload)


@pytest.mark.root
@pytest.mark.parametrize("name", _with_agent())
def test_a_recorded_conversation_comes_through_unchanged(name, hops):
    recording = traces.read(TRACES / f"{name}.jsonl")
    player = Player(hops)
    player.play(recording)
    assert player.compared == len(traces.frames(recording, "agent")) - 2 * len(player.unreadable)


def test_the_recordings_cover_both_shims_and_the_faults():
    names = _with_agent()
    assert {"normal", "normal-rs", "exec-io", "exec-io-rs", "print5mb", "agent-drop", "guest-crash", "oom"} <= set(
        names
    )


@pytest.mark.parametrize("name", ["caa-normal", "caa-normal-rs"])
def test_our_edits_are_those_of_the_reference(name):
    """The reference's forwarder was recorded on both sides."""
    recording = traces.read(TRACES / f"{name}.jsonl")
    edits = {
        "CreateContainer": (agent.CreateContainerRequest, lambda payload: rewrites.create_container(payload)[0]),
        "CreateSandbox": (agent.CreateSandboxRequest, rewrites.create_sandbox),
    }
    for method, (message, edit) in edits.items():
        shim, guest = (
            [one.payload for one in traces.frames(recording, side) if one.to_agent and one.method == method]
            for side in ("agent", "agent-guest")
        )
        assert len(shim) == len(guest) > 0
        for before, after in zip(shim, guest, strict=True):
            assert message.FromString(edit(before)) == message.FromString(after)
