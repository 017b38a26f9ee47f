"""What goes wrong on Google Cloud alone; test_faults.py has what goes wrong on every cloud."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import CapacityError, ProviderError
from caa.model.instance import Severity
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.world import World, launch, world

FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)  # the others are tried again


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = replace(made.waits, read_timeout=0.3, long_poll=0.3, looks=5, undo=200, running=40, address=20)
        yield made


async def test_a_name_that_was_made_and_removed_is_made_anew(gcp: World) -> None:
    """The cloud answers a request id that it knows with the old operation, whose instance is long gone."""
    one = gcp.make()
    for _ in range(3):
        made = await one.create(launch())
        await one.delete(made.id)
    assert gcp.cloud.ledger.made["instance"] == 3
    await one.close()


async def test_no_room_in_a_zone_moves_on_to_the_next(gcp: World) -> None:
    one = gcp.make(FALLBACK_ZONES="europe-west3-b,europe-west4-a")
    gcp.google.faults.full = {("", "europe-west3-a"), ("", "europe-west3-b")}
    made = await one.create(launch())
    assert [noted.request.path.split("/")[6] for noted in gcp.wire.journal if noted.call == "instances.insert"] == [
        "europe-west3-a",
        "europe-west3-b",
        "europe-west4-a",
    ]
    assert "regions/europe-west4/" in gcp.cloud.inserts[-1]["networkInterfaces"][0]["subnetwork"]
    await one.delete(made.id)
    await one.close()


async def test_a_half_made_instance_leaves_no_disk(gcp: World) -> None:
    """An insert without room may leave its root disk; it is removed at once, or found as an orphan."""
    one = gcp.make()
    gcp.cloud.half_made = True
    gcp.google.faults.full = {("", "")}
    with pytest.raises(CapacityError):
        await one.create(launch())
    assert gcp.cloud.ledger.made["disk"] == 1
    assert not gcp.cloud.ledger
    gcp.google.faults.plan("disks.delete", Fault.UNAUTHORISED, times=ALWAYS)
    with pytest.raises(CapacityError):
        await one.create(launch("podvm-web-99999999"))
    assert await gcp.swept(one) == ["disk/europe-west3-a/podvm-web-99999999"]
    await one.close()


FAMILY = {"PODVM_IMAGE_NAME": "projects/demo-project/global/images/family/podvm"}
OTHERS = {
    "images.getFromFamily": FAMILY,
    "regionDisks.get": {},
    "machineTypes.get": {"GCP_MACHINE_TYPE": "n2d-custom-2-4096"},
}


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", list(OTHERS))
async def test_a_fault_once_of_what_few_launches_call(gcp: World, call: str, fault: Fault) -> None:
    volume = gcp.cloud.make_regional_disk(["europe-west3-a", "europe-west3-b"], "data")
    one = gcp.make(**OTHERS[call])
    gcp.google.faults.plan(call, fault)
    with suppress(*((ProviderError,) if fault in FINAL else ())):
        made = await one.create(launch(volumes=(volume,)))
        await one.delete(made.id)
    assert call in gcp.wire.calls(fault=fault), "the planned call was never met"
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_once_while_a_left_disk_is_removed(gcp: World, fault: Fault) -> None:
    """The sweep finds it where the undo could not."""
    gcp.cloud.half_made = True
    one = gcp.make()
    gcp.google.faults.full = {("", "")}
    gcp.google.faults.plan("disks.delete", fault, times=2 if fault in FINAL else 1)
    with pytest.raises(CapacityError):
        await one.create(launch())
    assert "disks.delete" in gcp.wire.calls(fault=fault)
    assert bool(await gcp.swept(one)) is (fault in FINAL)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_once_while_the_console_is_read(gcp: World, fault: Fault) -> None:
    one = gcp.make()
    made = await one.create(launch())
    gcp.google.faults.plan("instances.getSerialPortOutput", fault)
    with suppress(*((ProviderError,) if fault in FINAL else ())):
        assert b"Linux" in await one.console(made.id)
    assert "instances.getSerialPortOutput" in gcp.wire.calls(fault=fault)
    await one.delete(made.id)
    await one.close()


CHECKED = (
    "projects.testIamPermissions", "tagValues.testIamPermissions", "subnetworks.testIamPermissions",
    "images.testIamPermissions", "subnetworks.get", "networks.getEffectiveFirewalls", "regions.get",
    "acceleratorTypes.get",
)  # fmt: skip


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", CHECKED)
async def test_a_fault_while_checking_is_a_finding(gcp: World, call: str, fault: Fault) -> None:
    """`caa doctor` never ends in an error; what passes is asked again, what stays is told."""
    one = gcp.make(TAGS="team=blue", GCP_ACCELERATORS="n1-standard-8=nvidia-tesla-t4")
    gcp.google.faults.plan(call, fault, times=ALWAYS if fault in FINAL else 1)
    found = [finding for finding in await one.check() if finding.severity is not Severity.OK]
    assert call in gcp.wire.calls(fault=fault)
    assert bool(found) is (fault in FINAL), found
    assert all(finding.remedy for finding in found)
    await one.close()
