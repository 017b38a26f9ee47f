"""What the daemons and the pod VM say of a start, read from their logs as spans of the waterfall. Pure."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from caa.testing.demo.report import Span

_CONSOLE = re.compile(r"\[ *(?P<seconds>[0-9.]+)\] podvm: (?P<text>.*)")
_SOURCE = re.compile(r"podvm: user data from ([a-z]+)$", re.MULTILINE)
_MILESTONES = ("boot", "podns is there", "pod network is there", "agent listens", "forwarder listens")


def node_steps(log: str, *, sandbox: str, began: float) -> list[Span]:
    """The steps of one sandbox's start from the node's JSON log; `began` is CreateVM's time since the epoch."""
    return [_step(line, began) for line in _lines(log) if line.get("sandbox") == sandbox and "step" in line]


def _lines(log: str) -> Iterator[dict[str, str]]:
    for text in log.splitlines():
        if text.startswith("{"):
            yield json.loads(text)


def _step(line: dict[str, str], began: float) -> Span:
    length = float(line["ms"])
    end = (datetime.fromisoformat(line["timestamp"]).timestamp() - began) * 1000
    return Span(f"  node: {line['step']}", end - length, length)


def guest_milestones(console: str, began: float) -> list[Span]:
    """What the pod VM reached when, from its console; `began` is CreateVM's time on the monotonic clock."""
    reached = []
    for text in console.splitlines():
        found = _CONSOLE.match(text)
        if found and found["text"] in _MILESTONES:
            reached.append(((float(found["seconds"]) - began) * 1000, found["text"]))
    return _between(reached)


def source_of_user_data(console: str) -> str:
    """Where the pod VM found its user data, as it says; "" when it does not."""
    found = _SOURCE.search(console)
    return found[1] if found else ""


def _between(reached: Sequence[tuple[float, str]]) -> list[Span]:
    begins = [reached[0][0], *(when for when, _ in reached)] if reached else []
    return [Span(f"  guest: {text}", begin, when - begin) for begin, (when, text) in zip(begins, reached, strict=False)]
