"""A fake EC2 with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import botocore.session

import providers.aws
from providers.aws.surroundings import Waits
from tests.fakes import world as any_cloud
from tests.fakes.aws.ec2 import Ec2
from tests.fakes.wire import Wire
from tests.fakes.world import OWNER, launch

__all__ = ["OWNER", "World", "launch", "plain", "world"]

# Reading AWS's service models takes most of the time of a client; every driver of a run may share them.
_LOADER = botocore.session.create_loader()
botocore.session.create_loader = lambda *_: _LOADER


class World(any_cloud.World):
    """`ec2` is the cloud."""

    driver = providers.aws

    def __init__(self, folder: Path, ec2: Ec2, wire: Wire) -> None:
        super().__init__(folder, wire)
        self.ec2, self.faults, self.ledger = ec2, ec2.faults, ec2.ledger
        self.waits = Waits(read_timeout=1.0, looks=5)

    def settings(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": self.ec2.region,
            "AWS_ENDPOINT_URL_EC2": self.wire.url,
            "AWS_ENDPOINT_URL_STS": self.wire.url,
            "AWS_ENDPOINT_URL_SERVICE_QUOTAS": self.wire.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9",  # nobody: the node is not on EC2
            "PODVM_AMI_ID": self.ec2.ami,
            "AWS_SUBNET_ID": self.ec2.subnets[0],
            "AWS_SG_IDS": self.ec2.group,
        }

    def plain(self, text: str) -> str:
        return plain(text, self.ec2)

    def settle(self) -> None:
        self.ec2.settle()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    ec2 = Ec2()
    ec2.warm_up()
    with Wire(ec2) as wire:
        made = World(folder, ec2, wire)
        async with aclosing(made):
            yield made
        made.nothing_left()


def plain(text: str, ec2: Ec2) -> str:
    """A text of this world without what differs from run to run."""
    for number, subnet in enumerate(ec2.subnets, 1):
        text = text.replace(subnet, f"subnet-{number}")
    text = text.replace(ec2.group, "sg-1")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://ec2", text)
    text = re.sub(r"\b(i|vol|eni|eipalloc|eipassoc)-[0-9a-f]{8,17}\b", r"\1-0", text)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
