"""Settings that change while the node runs: when they are read again, what takes effect, what needs a restart."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from caa.config import directory
from caa.config.load import Loaded, Settings
from caa.errors import CaaError, ConfigError

log = structlog.get_logger(__name__)

_LOOK_EVERY = 5.0  # seconds; the kubelet itself takes up to a minute to write a changed ConfigMap

Read = Callable[[], Settings]
Apply = Callable[[Settings, Sequence[Loaded]], None]


def changes(before: Settings, after: Settings) -> list[Loaded]:
    """What is not as it was. A row of only one of the two is none: another driver has other rows."""
    return [one for one in after if one.row in before and before[one.row] != one.value]


@dataclass(slots=True)
class Reload:
    """Reads the settings again and applies what is live. `settings` are those in effect; what cannot change in a
    running process stays in them as it was at the start."""

    settings: Settings
    read: Read
    apply: Apply
    told: tuple[str, ...] = ()  # settings that wait for a restart, as the log has them already

    def once(self) -> None:
        """Never raises for a wrong setting: what was stays in effect, and the log says what is wrong."""
        try:
            fresh = self.read()
        except ConfigError as error:
            log.error("the settings were not read again, those of before stay in effect", error=str(error))
            return
        changed = changes(self.settings, fresh)
        self._tell(tuple(one.row.label for one in changed if not one.row.live))
        live = [one for one in changed if one.row.live]
        if live:
            self._take(self.settings.changed(live), live)

    def _tell(self, fixed: tuple[str, ...]) -> None:
        if fixed and fixed != self.told:
            log.error("changed settings that take effect only at the next start of caa node", settings=fixed)
        self.told = fixed

    def _take(self, settings: Settings, live: list[Loaded]) -> None:
        try:
            self.apply(settings, live)
        except CaaError as error:
            log.error("the changed settings do not work, those of before stay in effect", error=str(error))
            return
        self.settings = settings
        log.info("settings changed", **{one.row.name: one.text for one in live})


async def watch(reload: Reload, folder: Path | None, *, told: asyncio.Event) -> None:
    """For ever: read again when a file of the settings directory has changed, and when `told` is set (SIGHUP)."""
    known = await _stamp(folder)
    while True:
        try:
            async with asyncio.timeout(_LOOK_EVERY):
                await told.wait()
        except TimeoutError:
            pass
        now = await _stamp(folder)
        if told.is_set() or now != known:
            told.clear()
            known = now
            reload.once()


async def _stamp(folder: Path | None) -> directory.Stamp | str:
    try:
        return await asyncio.to_thread(directory.stamp, folder)
    except ConfigError as error:
        return str(error)
