"""The stages of a pod VM's boot, and the table with a column an image; pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from caa.testing.demo import observe
from caa.testing.demo.report import Span

# Each lasts until what is said of it; the first one begins when the driver is asked for a pod VM.
STAGES: Mapping[str, str] = MappingProxyType(
    {
        "create": "QEMU runs: domain and disks made, user data uploaded",
        "firmware": "the guest's clock begins: firmware, boot loader, the kernel's first steps",
        "kernel": "the first of our programs runs: kernel, initramfs, systemd where there is one",
        "user data": "it is found, checked and written, the initdata measured",
        "agent": "the agent listens",
        "link": "the relay has its TLS link: pod network, forwarder, StartVM is answered",
    }
)
_TOTAL = "CreateVM to StartVM's answer"
_BEGIN, _END = "<!-- boot:begin -->", "<!-- boot:end -->"
_USER_DATA = re.compile(r"(user data from|no source of user data|wrote |initdata digest|PCR \d+ is)")
_AGENT = (
    "agent listens",
    "pod network: ",
)  # the second where a unit starts the forwarder when the agent's socket is there


@dataclass(frozen=True)
class Boot:
    """How long each stage took, and the whole, in milliseconds."""

    stages: Mapping[str, float]
    total: float


@dataclass(frozen=True)
class Column:
    """An image: its title, how it was booted, milliseconds."""

    title: str
    words: str
    stages: Mapping[str, float]
    total: float


def boot(
    *, steps: Sequence[Span], started: float | None, clock_began: float | None, console: str, answered: float
) -> Boot:
    """The stages of one boot; times are milliseconds from CreateVM, but for `clock_began`, which is seconds. Raises
    `ValueError` when something was not seen."""
    launch = [one.start_ms for one in steps if one.name.endswith("launch")]
    if started is None or clock_began is None or not launch:
        raise ValueError("the node did not say when the VM began to run, or its console says nothing")
    lines = observe.guest_lines(console, -clock_began)
    ends = [
        started,
        clock_began * 1000,
        lines[0][0],
        max(when for when, text in lines if _USER_DATA.match(text)),
        _agent(lines),
        answered,
    ]
    begins = [launch[-1], *ends]
    lengths = [end - begin for begin, end in zip(begins, ends, strict=False)]
    return Boot(dict(zip(STAGES, lengths, strict=True)), answered)


def _agent(lines: Sequence[tuple[float, str]]) -> float:
    for words in _AGENT:
        found = [when for when, text in lines if text.startswith(words)]
        if found:
            return found[0]
    raise ValueError("the console does not say when the agent listened")


def with_column(page: str, column: Column) -> Sequence[Column]:
    """The columns that a page has between its marks, with this one in place of the one of its title, or as the last."""
    there = {one.title: one for one in _columns(page.partition(_BEGIN)[2].partition(_END)[0])}
    return list({**there, column.title: column}.values())


def table(columns: Sequence[Column]) -> str:
    """Markdown: milliseconds, a row a stage; below it how each image was booted."""
    titles = " | ".join(one.title for one in columns)
    rows = [f"| {name} | {until} | {_cells(columns, name)} |" for name, until in STAGES.items()]
    total = " | ".join(f"{one.total:.0f}" for one in columns)
    words = [f"- {one.title}: {one.words}" for one in columns]
    head = [f"| stage | lasts until | {titles} |", f"|---|---|{'---|' * len(columns)}"]
    return "\n".join([*head, *rows, f"| **in all** | {_TOTAL} | {total} |", "", *words])


def _cells(columns: Sequence[Column], stage: str) -> str:
    return " | ".join(f"{one.stages[stage]:.0f}" for one in columns)


def _columns(text: str) -> Sequence[Column]:
    rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines() if line[:2] == "| "]
    if not rows:
        return []
    words = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("- "))
    values = {row[0]: [float(cell) for cell in row[2:]] for row in rows[1:]}
    return [
        Column(title, words[title], {name: values[name][place] for name in STAGES}, values["**in all**"][place])
        for place, title in enumerate(rows[0][2:])
    ]
