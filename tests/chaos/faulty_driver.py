"""The driver `faulty`, for a real node process: `local`, whose calls go wrong as files in a folder say.

A file `<call>.<pod>.<number>` (`<call>..<number>` for a call that is about no pod) holds a `Fault`; the call that takes
it removes it first, so that a fault comes once even when the node is killed in the middle of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caa.config.kinds import STRING
from caa.config.load import Settings
from caa.config.setting import AnySetting, Setting
from caa.model.ids import InstanceId
from caa.provider.contract import (
    Capabilities,
    Finding,
    Instance,
    InstanceState,
    InstanceType,
    LaunchRequest,
    Owner,
    Provider,
)
from caa.testing.faulty import Fault, Faulty
from providers import local

NAME = "faulty"
FOLDER: Setting[str] = Setting(
    name="faults_folder", env="FAULTS_FOLDER", kind=STRING, default="", help="Where the planned faults are."
)
SETTINGS: Sequence[AnySetting] = (*local.SETTINGS, FOLDER)


def make(settings: Settings) -> Provider:
    """The driver over `local`."""
    return Planned(local.make(settings), Path(settings[FOLDER]))


def install(folder: Path) -> None:
    """Make `NAME` known to a process that has `folder` on its path, as an installed distribution would."""
    info = folder / f"{NAME}-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[caa.providers]\n{NAME} = {__name__}\n")


def plan(folder: Path, call: str, fault: Fault, *, pod: str, number: int) -> None:
    """Let one call go wrong; those with lower numbers come first."""
    fresh = folder / f".{call}.{pod}.{number}"
    fresh.write_text(fault)
    fresh.rename(folder / f"{call}.{pod}.{number}")  # never seen half written


def planned(folder: Path) -> list[str]:
    """The faults that nobody has met yet."""
    return sorted(path.name for path in folder.iterdir())


def _pod(name: str) -> str:
    """Of `podvm-<pod>-<8 characters>`."""
    return name.removeprefix("podvm-")[:-9]


@dataclass(frozen=True)
class Planned:
    """The contract over `local`, with a catalogue of one type, so that `instance_types` is asked."""

    driver: Provider
    folder: Path

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.driver.capabilities, sized_by_type=True)

    async def check(self) -> Sequence[Finding]:
        found: Sequence[Finding] = await self._met("check", lambda it: it.check())
        return found

    async def instance_types(self) -> Sequence[InstanceType]:
        await self._met("instance_types", lambda it: it.instance_types())
        return (InstanceType(name="one", vcpus=64, memory_mib=1 << 20),)

    async def create(self, request: LaunchRequest) -> Instance:
        made: Instance = await self._met("create", lambda it: it.create(request), pod=_pod(request.name))
        return made

    async def delete(self, instance: InstanceId) -> None:
        await self._met("delete", lambda it: it.delete(instance), pod=_pod(instance))

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        found: Sequence[Instance] = await self._met("list_owned", lambda it: it.list_owned(owner))
        return found

    async def state(self, instance: InstanceId) -> InstanceState:
        told: InstanceState = await self._met("state", lambda it: it.state(instance), pod=_pod(instance))
        return told

    async def console(self, instance: InstanceId) -> bytes:
        text: bytes = await self._met("console", lambda it: it.console(instance), pod=_pod(instance))
        return text

    async def close(self) -> None:
        await self._met("close", lambda it: it.close())

    async def _met(self, call: str, act: Callable[[Provider], Awaitable[Any]], *, pod: str = "") -> Any:
        driver: Provider = Faulty(self.driver)
        for path in sorted(self.folder.glob(f"{call}.{pod}.*")):
            fault = Fault(path.read_text())
            path.unlink()
            driver = Faulty(self.driver)
            driver.plan(call, fault)
            break
        return await act(driver)
