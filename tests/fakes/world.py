"""What the tests of every cloud's driver ask of their fake: drivers over it, launches, a sweep, an empty ledger."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from caa.config.load import Settings, load
from caa.config.node import NODE_ROWS
from caa.config.setting import AnySetting
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner
from caa.provider.clock import Clock
from caa.provider.contract import Provider
from caa.testing.clock import ScaledClock
from tests.fakes.faults import Faults
from tests.fakes.ledger import Ledger
from tests.fakes.wire import Wire

OWNER = Owner(cluster="c1", node="n1")
SPEED = 50.0  # how much faster than the world's clock the drivers' runs


class Driver(Protocol):
    """A driver's package."""

    __name__: str
    SETTINGS: tuple[AnySetting, ...]

    def make(self, values: Settings, *, clock: Clock, waits: Any) -> Provider: ...


class World(ABC):
    """A fake cloud behind `wire`; `make` gives drivers. Each cloud's own world adds the cloud itself by its name."""

    driver: Driver
    waits: Any  # a dataclass of the driver's
    faults: Faults
    ledger: Ledger

    def __init__(self, folder: Path, wire: Wire) -> None:
        self.folder, self.wire, self.speed = folder, wire, SPEED
        self._made: list[Provider] = []

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """The settings of a node in this cloud that are the cloud's own."""

    @abstractmethod
    def plain(self, text: str) -> str:
        """A text of this world without what differs from run to run."""

    @abstractmethod
    def settle(self) -> None:
        """Let the cloud's time go on, so that the ledger says what is."""

    def environ(self, **other: str) -> dict[str, str]:
        """The settings of a node in this cloud; "" takes one away."""
        found = {
            **self.settings(),
            "CAA_CATALOGUE_DIR": str(self.folder / "catalogue"),
            "CLOUD_CALLS_PER_SECOND": "100",
            **other,
        }
        return {key: value for key, value in found.items() if value}

    def make(self, *, flags: Mapping[str, str] | None = None, **other: str) -> Provider:
        """A driver with these settings; what is set twice is the latter. It is closed with the world at the latest."""
        values = load((*NODE_ROWS, *self.driver.SETTINGS), self.environ(**other), flags=flags or {})
        self._made.append(self.driver.make(values, clock=ScaledClock(self.speed), waits=self.waits))
        return self._made[-1]

    async def aclose(self) -> None:
        """Close every driver: one that a failed test left open would be the failure of a later one."""
        for one in self._made:
            await one.close()

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.faults.clear()

    async def swept(self, driver: Provider) -> list[str]:
        """Remove what is owned, as the sweep of the node does, and prove that nothing is left. Returns the ids."""
        self.calm()
        await asyncio.sleep(self.faults.visible_after)
        found = [str(one.id) for one in await driver.list_owned(OWNER)]
        await asyncio.gather(*(driver.delete(one.id) for one in await driver.list_owned(OWNER)))
        self.nothing_left()
        return found

    def nothing_left(self) -> None:
        """Fail when anything is alive."""
        self.settle()
        assert not self.ledger, str(self.ledger)[-2000:]


def launch(name: str = "podvm-web-0a1b2c3d", **other: object) -> LaunchRequest:
    """A launch request of a pod."""
    fields: Mapping[str, object] = {
        "name": name,
        "sandbox": SandboxId(f"sandbox-{name[-8:]}"),
        "owner": OWNER,
        "token": f"token-{name[-8:]}",
        "user_data": b"#cloud-config\n",
        "namespace": "shop",
        "pod": "web",
        **other,
    }
    return LaunchRequest(**fields)  # type: ignore[arg-type]
