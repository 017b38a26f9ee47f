"""Lines on the console that say what the guest does and when; the times are the kernel's monotonic clock.

A pod VM that is a process tree shares that clock with its node, so a reader can put both into one picture.
"""

import logging
import re
import sys
import time
from dataclasses import dataclass

_LINE = re.compile(r"^\[ *(?P<time>\d+\.\d{6})\] podvm: (?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a console: seconds of the monotonic clock, and what began or was done then."""

    time: float
    text: str


def say(text: str) -> None:
    """Write one line to the console, at once."""
    sys.stdout.write(f"[{time.monotonic():14.6f}] podvm: {text}\n")
    sys.stdout.flush()


def steps(console: str) -> list[Step]:
    """The lines of `say` in a console log, in their order."""
    found = (_LINE.match(line) for line in console.splitlines())
    return [Step(float(one["time"]), one["text"]) for one in found if one]


def log_to_console() -> None:
    """Let the log of every module appear as such lines too."""
    logging.basicConfig(level=logging.INFO, handlers=[_Console()], force=True)


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
