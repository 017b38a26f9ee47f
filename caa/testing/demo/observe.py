"""What the daemons and the pod VM say of a start, read from their logs as spans of the waterfall. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from caa.testing.demo.report import Span

VM_STARTED = "the VM runs, its address is waited for"  # what a driver with real VMs logs
_CONSOLE = re.compile(r"\[ *(?P<seconds>[0-9.]+)\] podvm: (?P<text>.*)")
_CLOUD = re.compile(r"^\[ *([0-9.]+)\] hypervisor: (asked for|switched on)$", re.MULTILINE)
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
    length, end = float(line["ms"]), _when(line, began)
    return Span(f"  node: {line['step']}", end - length, length)


def _when(line: Mapping[str, str], began: float) -> float:
    return (datetime.fromisoformat(line["timestamp"]).timestamp() - began) * 1000


def vm_started(log: str, *, sandbox: str, began: float) -> float | None:
    """When the driver had a real VM for the sandbox running, in milliseconds from CreateVM; None where it had none."""
    found = [one for one in _lines(log) if one.get("sandbox") == sandbox and one.get("event") == VM_STARTED]
    return _when(found[-1], began) if found else None


def guest_milestones(console: str, began: float) -> list[Span]:
    """What the pod VM reached when, from its console; `began` is CreateVM's time on the guest's clock."""
    return _between([(when, text) for when, text in guest_lines(console, began) if text in _MILESTONES], "guest")


def cloud_milestones(console: str, began: float) -> list[Span]:
    """When a fake cloud was asked for the pod VM and when it switched it on, which it writes on the console too."""
    return _between([((float(at) - began) * 1000, text) for at, text in _CLOUD.findall(console)], "cloud")


def guest_lines(console: str, began: float) -> list[tuple[float, str]]:
    """Every line of the pod VM's own programs, and when it was written, in milliseconds from CreateVM."""
    found = [_CONSOLE.search(text) for text in console.splitlines()]
    return [((float(one["seconds"]) - began) * 1000, one["text"].strip()) for one in found if one]


def stamp(line: str) -> float | None:
    """The guest's clock in a line of the pod VM's own programs; None for any other line."""
    found = _CONSOLE.search(line)
    return float(found["seconds"]) if found else None


def vm_milestones(console: str, *, started: float | None, clock_began: float | None) -> list[Span]:
    """The same of a real VM, with what came before its programs; empty when it has not said anything.

    `started` is when it began to run, in milliseconds, `clock_began` when its clock did, in seconds; from CreateVM.
    """
    if started is None or clock_began is None:
        return []
    zero, first = clock_began * 1000, guest_lines(console, -clock_began)[0][0]
    before = [Span("  guest: firmware", started, zero - started), Span("  guest: kernel", zero, first - zero)]
    return [*before, *guest_milestones(console, -clock_began)]


def source_of_user_data(console: str) -> str:
    """Where the pod VM found its user data, as it says; "" when it does not."""
    found = _SOURCE.search(console)
    return found[1] if found else ""


def _between(reached: Sequence[tuple[float, str]], who: str) -> list[Span]:
    begins = [reached[0][0], *(when for when, _ in reached)] if reached else []
    return [Span(f"  {who}: {text}", begin, when - begin) for begin, (when, text) in zip(begins, reached, strict=False)]
