"""The folder in which images are made: one builder at a time."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Wait until no other process works in `cache`, which is made if it is not there, and keep others out.

    A line on standard error says so when there is one: it may be busy for minutes.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"image: another builder is at work in {cache}, waiting for it\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
