"""A real VM's console log as it grows: it tells when the guest's clock began, which no host can ask for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from caa.testing.demo import observe

_LOOK = 0.01  # seconds


@dataclass
class Watch:
    """What a console has said so far. `file` is its log, which need not be there yet; `now` any clock of the host.

    `clock_began` is when the guest's monotonic clock began, by the host's: the earliest that any line allows for, since
    a line is seen a little later than it was written.
    """

    file: Path
    now: Callable[[], float]
    clock_began: float | None = None
    text: str = ""
    _rest: bytes = b""
    _read: int = 0

    async def follow(self) -> None:
        """For ever; to be cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> None:
        """Read what is new."""
        new = self._new()
        if not new:
            return
        seen = self.now()
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            said = line.decode("utf-8", "replace").rstrip("\r")
            self.text += f"{said}\n"
            if (stamp := observe.stamp(said)) is not None:
                began = seen - stamp
                self.clock_began = began if self.clock_began is None else min(self.clock_began, began)

    def _new(self) -> bytes:
        try:
            with self.file.open("rb") as log:
                log.seek(self._read)
                new = log.read()
        except OSError:  # not there yet, or not any more
            return b""
        self._read += len(new)
        return new


@asynccontextmanager
async def followed(file: Path, *, since: float) -> AsyncIterator[Watch]:
    """A console for as long as the block, in seconds since `since` on the monotonic clock."""
    watch = Watch(file, lambda: time.monotonic() - since)
    following = asyncio.create_task(watch.follow())
    try:
        yield watch
    finally:
        watch.look()
        following.cancel()
