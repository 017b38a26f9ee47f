"""`gcp` keeps the drivers' contract: over a prompt Compute Engine, and over one that is slow."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.model.instance import Instance
from caa.testing.provider_contract import Cloud, ProviderContract
from tests.fakes.gcp.world import World, world


def _cloud(made: World, **settings: str) -> Cloud:
    async def halted(instance: Instance) -> None:
        made.cloud.power_off(instance.name)

    def nothing_left() -> bool:
        made.cloud.settle()
        return not made.cloud.ledger

    return Cloud(
        driver=made.make(**settings),
        restarted=lambda: made.make(**settings),
        nothing_left=nothing_left,
        halted=halted,
        disk=lambda: made.cloud.make_disk("europe-west3-a", f"pvc-{secrets.token_hex(4)}"),
        held=lambda disk: bool(made.cloud.disk("europe-west3-a", disk.rpartition("/")[2])["users"]),
    )


class TestGcp(ProviderContract):
    """As quick as the fake goes."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            cloud = _cloud(made)
            yield cloud
            await cloud.driver.close()


class TestSlowGcp(ProviderContract):
    """Operations take their time, new instances are not seen at once, addresses come late, two interfaces."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            made.cloud.delays.making = 0.1
            made.cloud.delays.ending = 0.1
            made.cloud.delays.address = 0.15
            made.google.faults.visible_after = 0.05
            made.google.faults.latency = 0.005
            cloud = _cloud(
                made,
                USE_PUBLIC_IP="true",
                EXTERNAL_NETWORK_VIA_PODVM="true",
                GCP_EXTERNAL_NETWORK="outside",
                GCP_EXTERNAL_SUBNETWORK="outside",
            )
            yield cloud
            await cloud.driver.close()
