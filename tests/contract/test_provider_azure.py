"""`azure` keeps the drivers' contract: over a prompt Azure, and over one that is slow and eventually consistent."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.model.instance import Instance
from caa.testing.provider_contract import Cloud, ProviderContract
from tests.fakes.azure.world import World, world


def _cloud(made: World, **settings: str) -> Cloud:
    async def halt(instance: Instance) -> None:
        made.azure.halt(instance.name)

    def nothing_left() -> bool:
        made.azure.estate.advance()
        return not made.azure.ledger

    return Cloud(
        driver=made.make(**settings),
        restarted=lambda: made.make(**settings),
        nothing_left=nothing_left,
        halted=halt,
        disk=lambda: made.azure.estate.make_disk(f"pvc-{secrets.token_hex(4)}"),
        held=lambda disk: bool(made.azure.estate.parts[disk.lower()]["properties"]["diskState"] != "Unattached"),
        absent=f"{made.azure.site.base}/Microsoft.Compute/virtualMachines/podvm-nobody-00000000",
    )


class TestAzure(ProviderContract):
    """As quick as the fake goes."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            cloud = _cloud(made)
            yield cloud
            await cloud.driver.close()


class TestSlowAzure(ProviderContract):
    """Stages take their time, new VMs are not listed at once, public addresses, two interfaces."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            delays = made.azure.delays
            delays.nic, delays.power, delays.made, delays.ending = 0.05, 0.1, 30.0, 0.1
            made.azure.faults.visible_after = 0.05
            made.azure.faults.latency = 0.005
            cloud = _cloud(made, USE_PUBLIC_IP="true", EXTERNAL_NETWORK_VIA_PODVM="true")
            yield cloud
            await cloud.driver.close()
