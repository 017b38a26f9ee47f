"""Stops that the relay has written down: one file a sandbox in `<state dir>/stops`, removed once the stop is durable.

The relay writes the file before it passes a StopVM on, and answers the shim itself when we are away or slow; the
shim sends a StopVM once and never again (`reference/kata.md` 6.11), so the file is all there is.
"""

import asyncio
from pathlib import Path

import structlog

from caa.errors import CaaError, InvalidInput, StateError
from caa.model.ids import SandboxId, sandbox_id
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

FOLDER = "stops"
_EVERY = 5.0  # seconds; a file that is older belongs to a call that never reached us


class StopFiles:
    """The folder of recorded stops. Raises `StateError` when it cannot be read or written.

    While `kept` is true no stop is settled: sandboxes may run that are not known yet.
    """

    def __init__(self, state_dir: Path, *, kept: bool = False) -> None:
        self.kept = kept
        self._folder = state_dir / FOLDER

    def recorded(self) -> list[SandboxId]:
        """The sandboxes with a recorded stop; a missing folder has none, files of other names are left alone."""
        try:
            names = sorted(entry.name for entry in self._folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"the recorded stops in {self._folder} cannot be read: {error.strerror}") from error
        return [sandbox for name in names if (sandbox := _id(name)) is not None]

    def has(self, sandbox: SandboxId) -> bool:
        return (self._folder / sandbox).exists()

    def settle(self, sandbox: SandboxId) -> None:
        """The stop is durable: forget it, unless stops are kept."""
        if not self.kept:
            self.remove(sandbox)

    def remove(self, sandbox: SandboxId) -> None:
        """Forget a stop; the absent is success."""
        try:
            (self._folder / sandbox).unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"the recorded stop of {sandbox} cannot be removed: {error.strerror}") from error


def _id(name: str) -> SandboxId | None:
    try:
        return sandbox_id(name)
    except InvalidInput:  # the relay's temporary names begin with a dot
        return None


async def stop_recorded(service: SandboxService, stops: StopFiles) -> None:
    """Act on every file: make the stop durable, then remove the file."""
    for sandbox in stops.recorded():
        log.info("acting on a stop that the relay recorded", sandbox=sandbox)
        try:
            await service.stop(sandbox)
            stops.settle(sandbox)
        except CaaError as error:  # the file stays, the next round tries again
            log.error("a recorded stop failed", sandbox=sandbox, error=str(error))


async def watch(service: SandboxService, stops: StopFiles) -> None:
    """For ever: act on files whose calls never reached us."""
    while True:
        await asyncio.sleep(_EVERY)
        try:
            await stop_recorded(service, stops)
        except StateError as error:
            log.error("the recorded stops cannot be read", error=str(error))
