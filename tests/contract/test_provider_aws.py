"""`aws` keeps the drivers' contract: over a prompt EC2, and over one that is slow and eventually consistent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.provider.contract import Instance
from caa.testing.provider_contract import Cloud, ProviderContract
from tests.fakes.aws.world import World, world


def _cloud(made: World, **settings: str) -> Cloud:
    async def halted(instance: Instance) -> None:
        made.ec2.stop(instance.id)

    return Cloud(
        driver=made.make(**settings),
        restarted=lambda: made.make(**settings),
        nothing_left=lambda: not made.ec2.ledger,
        disk=lambda: made.ec2.make_volume("eu-west-1a"),
        held=lambda disk: bool(made.ec2.backend.volumes[disk].attachment) or bool(made.ec2.disks.holder(disk)),
        absent="i-0123456789abcdef0",
        halted=halted,
    )


class TestAws(ProviderContract):
    """As quick as the fake goes."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            cloud = _cloud(made)
            yield cloud
            await cloud.driver.close()


class TestSlowAws(ProviderContract):
    """States take their time, new instances are not seen at once, a public address comes late, two interfaces."""

    @pytest.fixture
    async def cloud(self, tmp_path: Path) -> AsyncIterator[Cloud]:
        async with world(tmp_path) as made:
            made.ec2.delays.pending = 0.1
            made.ec2.delays.ending = 0.1
            made.ec2.faults.visible_after = 0.05
            made.ec2.faults.latency = 0.005
            cloud = _cloud(made, USE_PUBLIC_IP="true", EXTERNAL_NETWORK_VIA_PODVM="true")
            yield cloud
            await cloud.driver.close()
