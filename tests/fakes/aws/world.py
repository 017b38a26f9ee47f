"""A fake EC2 with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import botocore.session

import providers.aws
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner
from caa.provider.contract import Provider
from caa.testing.clock import ScaledClock
from providers.aws.surroundings import Waits
from tests.fakes.aws.ec2 import Ec2
from tests.fakes.wire import Wire

# Reading AWS's service models takes most of the time of a client; every driver of a run may share them.
_LOADER = botocore.session.create_loader()
botocore.session.create_loader = lambda *_: _LOADER

OWNER = Owner(cluster="c1", node="n1")
SPEED = 50.0  # how much faster than the world's clock the driver's runs


class World:
    """`ec2` is the cloud, `wire` its port, `make` gives drivers."""

    def __init__(self, folder: Path, ec2: Ec2, wire: Wire) -> None:
        self.folder, self.ec2, self.wire = folder, ec2, wire
        self.waits = Waits(read_timeout=1.0, looks=5)
        self.speed = SPEED

    def environ(self, **other: str) -> dict[str, str]:
        """The settings of a node in this cloud; "" takes one away."""
        found = {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": self.ec2.region,
            "AWS_ENDPOINT_URL_EC2": self.wire.url,
            "AWS_ENDPOINT_URL_STS": self.wire.url,
            "PODVM_AMI_ID": self.ec2.ami,
            "AWS_SUBNET_ID": self.ec2.subnets[0],
            "AWS_SG_IDS": self.ec2.group,
            "CAA_CATALOGUE_DIR": str(self.folder / "catalogue"),
            "CLOUD_CALLS_PER_SECOND": "100",
            **other,
        }
        return {key: value for key, value in found.items() if value}

    def make(self, **other: str) -> Provider:
        """A driver with these settings; what is set twice is the latter."""
        values = load((*NODE_ROWS, *providers.aws.SETTINGS), self.environ(**other))
        return providers.aws.make(values, clock=ScaledClock(self.speed), waits=self.waits)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.ec2.faults.clear()

    async def swept(self, driver: Provider) -> list[str]:
        """Remove what is owned, as the sweep of the node does, and prove that nothing is left. Returns the ids."""
        self.calm()
        found = [str(one.id) for one in await driver.list_owned(OWNER)]
        await asyncio.gather(*(driver.delete(one.id) for one in await driver.list_owned(OWNER)))
        assert not self.ec2.ledger, str(self.ec2.ledger)[-2000:]
        return found


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


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    ec2 = Ec2()
    ec2.warm_up()
    with Wire(ec2) as wire:
        made = World(folder, ec2, wire)
        yield made
        assert not ec2.ledger, str(ec2.ledger)[-2000:]


def plain(text: str, ec2: Ec2) -> str:
    """A text of this world without what differs from run to run."""
    for number, subnet in enumerate(ec2.subnets, 1):
        text = text.replace(subnet, f"subnet-{number}")
    text = text.replace(ec2.group, "sg-1")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://ec2", text)
    text = re.sub(r"\b(i|vol|eni|eipalloc|eipassoc)-[0-9a-f]{8,17}\b", r"\1-0", text)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
