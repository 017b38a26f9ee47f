"""What the fake clouds tell the host of their instances, and what they show of it; the host here only takes notes."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from caa.model.instance import InstanceState
from tests.fakes.aws import world as aws
from tests.fakes.azure import world as azure
from tests.fakes.gcp import world as gcp
from tests.fakes.machines import Guest, Order
from tests.fakes.world import World, launch

NAME = "podvm-web-0a1b2c3d"
DOCUMENT = b"#cloud-config\n# for the host\n"


@dataclass
class Notes:
    """`Host` that boots nothing."""

    halted: Callable[[str], None] = lambda name: None
    begun: dict[str, Guest] = field(default_factory=dict)
    orders: list[tuple[str, Order]] = field(default_factory=list)

    def begin(self, name: str, guest: Guest) -> None:
        self.begun[name] = guest

    def order(self, name: str, order: Order) -> None:
        self.orders.append((name, order))

    def console(self, name: str) -> bytes:
        return f"printed by {name}\n".encode()


def _aws(found: Any, notes: Notes) -> None:
    found.ec2.host, notes.halted = notes, found.ec2.stop
    found.ec2.delays.pending = 0.2


def _azure(found: Any, notes: Notes) -> None:
    found.azure.estate.host, notes.halted = notes, found.azure.halt
    found.azure.delays.power = 0.2


def _gcp(found: Any, notes: Notes) -> None:
    found.cloud.host, notes.halted = notes, found.cloud.power_off
    found.cloud.delays.making = 0.2


CLOUDS: Mapping[str, Any] = {"aws": (aws.world, _aws), "azure": (azure.world, _azure), "gcp": (gcp.world, _gcp)}


@asynccontextmanager
async def hosted(cloud: str, folder: Path) -> AsyncIterator[tuple[World, Notes]]:
    opened, attach = CLOUDS[cloud]
    async with opened(folder) as found:
        notes = Notes()
        attach(found, notes)
        yield found, notes


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_instance_begins_halts_and_ends(cloud: str, tmp_path: Path) -> None:
    async with hosted(cloud, tmp_path) as (world, notes):
        driver = world.make()
        made = await driver.create(launch(NAME, user_data=DOCUMENT))
        ((name, guest),) = notes.begun.items()
        assert name == made.id.rpartition("/")[2]
        assert guest.address == made.addresses[0]
        assert guest.user_data == (base64.b64encode(DOCUMENT) if cloud == "gcp" else DOCUMENT)
        assert 0.0 < guest.after <= 0.2
        assert await driver.console(made.id) == f"printed by {name}\n".encode()
        await asyncio.sleep(0.2)  # a machine halts after it was switched on
        notes.halted(name)
        assert await driver.state(made.id) is InstanceState.STOPPED
        await driver.delete(made.id)
        assert notes.orders[-1] == (name, Order.END)
        await driver.close()


async def test_ec2_stops_starts_and_reboots(tmp_path: Path) -> None:
    async with hosted("aws", tmp_path) as (world, notes):
        driver = world.make()
        made = await driver.create(launch(NAME))
        keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "secret"}
        ec2 = boto3.client("ec2", endpoint_url=world.wire.url, region_name="eu-west-1", **keys)
        for call in (ec2.reboot_instances, ec2.stop_instances, ec2.start_instances):
            call(InstanceIds=[made.id])
        assert [order for _, order in notes.orders] == [Order.REBOOT, Order.STOP, Order.START]
        await driver.delete(made.id)
        await driver.close()


async def test_no_room_no_guest(tmp_path: Path) -> None:
    async with hosted("azure", tmp_path) as (world, notes):
        world.faults.full.add(("", ""))
        driver = world.make()
        with pytest.raises(Exception, match="AllocationFailed"):
            await driver.create(launch(NAME))
        assert notes.begun == {}
        await driver.close()
