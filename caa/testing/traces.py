"""Recorded conversations of real shims and agents (JSON lines), read into frames and events for replay.

The format is that of the recordings in `tests/data/traces`: one object a line with `t_ms`, `conn` and `conn_id`, then
either a frame (`dir`, `stream`, `type`, ...) or an `event`. A payload above 64 KiB was cut when it was recorded; `size`
then is its true length and `cut` is true.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import Message

from caa.wire.proto import ttrpc
from caa.wire.proto.descriptors import methods

Side = Literal["hypervisor", "agent", "agent-guest", "direct", "driver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A request or an answer. `timeout_nano` and `metadata` belong to requests, `status` to answers.

    `status` is None where the answer carried none (which means OK), else (code, message).
    """

    t_ms: int
    side: Side
    connection: int
    to_agent: bool
    stream: int
    service: str
    method: str
    timeout_nano: int
    metadata: tuple[tuple[str, str], ...]
    status: tuple[int, str] | None
    payload: bytes
    size: int

    @property
    def cut(self) -> bool:
        """Whether the recording holds less than was sent."""
        return self.size != len(self.payload)

    @property
    def code(self) -> int:
        """An answer's status code; absent is OK."""
        return self.status[0] if self.status is not None else 0

    def message(self) -> Message:
        """The payload as a message of its method. Raises `DecodeError` for a cut one."""
        method = methods(self.service)[self.method]
        return (method.request if self.to_agent else method.response).FromString(self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is no frame: `open`, `close`, or what the recording's driver did. `facts` is the rest of it."""

    t_ms: int
    side: Side
    connection: int
    name: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, None where none was recorded."""

    request: Frame
    answer: Frame | None


def read(path: Path) -> list[Frame | Event]:
    """The whole recording, in order."""
    return [_entry(json.loads(line)) for line in path.read_text().splitlines() if line]


def frames(recording: list[Frame | Event], side: Side) -> list[Frame]:
    """The frames of one side, in order."""
    return [entry for entry in recording if isinstance(entry, Frame) and entry.side == side]


def exchanges(recording: list[Frame | Event], side: Side) -> Iterator[Exchange]:
    """The calls of one side, in the order of their requests, each with its answer."""
    own = frames(recording, side)
    answers = {(frame.connection, frame.stream): frame for frame in own if not frame.to_agent}
    for frame in own:
        if frame.to_agent:
            yield Exchange(frame, answers.get((frame.connection, frame.stream)))


def _entry(line: dict[str, Any]) -> Frame | Event:
    place: dict[str, Any] = {"t_ms": line["t_ms"], "side": line["conn"], "connection": line["conn_id"]}
    if "event" in line:
        facts = {key: value for key, value in line.items() if key not in ("t_ms", "conn", "conn_id", "event")}
        return Event(**place, name=line["event"], facts=facts)
    payload = base64.b64decode(line.get("payload_b64") or "")
    return Frame(
        **place,
        to_agent=line["dir"] == "shim>",
        stream=line["stream"],
        service=line.get("service") or "",
        method=line.get("method") or "",
        timeout_nano=line.get("timeout_nano") or 0,
        metadata=tuple(_pair(entry) for entry in line.get("metadata_b64") or ()),
        status=_status(line.get("status")),
        payload=payload,
        size=line.get("len", len(payload)),
    )


def _pair(encoded: str) -> tuple[str, str]:
    pair = ttrpc.KeyValue.FromString(base64.b64decode(encoded))
    return pair.key, pair.value


def _status(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    code, _, message = text.partition(":")
    return int(code), message
