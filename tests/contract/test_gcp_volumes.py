"""Data volumes of pods: matched before anything is paid for, attached in the insert, awaited, detached and kept."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import CapacityError, InvalidRequest, ProviderUnavailable
from tests.fakes.gcp.world import World, launch, world

ZONE = "europe-west3-a"


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = replace(made.waits, volume=30.0)
        yield made


async def test_they_are_attached_in_order_and_outlive_the_pod_vm(gcp: World) -> None:
    names = ["pvc-b", "pvc-a"]
    volumes = tuple(gcp.cloud.make_disk(ZONE, name) for name in names)
    one = gcp.make()
    made = await one.create(launch(volumes=volumes))
    disks = gcp.cloud.inserts[-1]["disks"]
    assert [disk["deviceName"] for disk in disks[1:]] == names
    assert all(disk["interface"] == "NVME" and not disk["autoDelete"] for disk in disks[1:])
    assert [gcp.cloud.disk(ZONE, name)["users"] for name in names] == [[made.name]] * 2
    await one.delete(made.id)
    assert [gcp.cloud.disk(ZONE, name)["users"] for name in names] == [[], []]
    await one.close()


async def test_a_failed_launch_lets_go_of_them(gcp: World) -> None:
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    one = gcp.make()
    gcp.google.faults.full = {("", "")}
    with pytest.raises(CapacityError):
        await one.create(launch(volumes=(volume,)))
    assert gcp.cloud.disk(ZONE, "pvc-1")["users"] == []
    await one.close()


async def test_one_that_the_pods_last_vm_still_has_is_awaited(gcp: World) -> None:
    """A pod of a StatefulSet starts anew while its old VM is still being removed."""
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    gcp.cloud.delays.ending = 0.3
    one = gcp.make()
    before = await one.create(launch(volumes=(volume,)))
    ending = asyncio.ensure_future(one.delete(before.id))
    after = await one.create(launch("podvm-web-99999999", volumes=(volume,)))
    assert gcp.cloud.disk(ZONE, "pvc-1")["users"] == [after.name]
    await ending
    await one.delete(after.id)
    await one.close()


@pytest.mark.parametrize(
    ("disk", "told"),
    [
        ({"users": [f"projects/demo-project/zones/{ZONE}/instances/other"]}, "it is attached to other; end that"),
        ({"status": "RESTORING"}, "it is RESTORING; wait"),
    ],
)
async def test_one_that_stays_busy_costs_nothing_and_is_told(gcp: World, disk: dict[str, object], told: str) -> None:
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    gcp.cloud.disk(ZONE, "pvc-1").update(disk)
    one = gcp.make()
    with pytest.raises(ProviderUnavailable, match=f"pvc-1 is free: not after 30 s; {told}"):
        await one.create(launch(volumes=(volume,)))
    assert not gcp.cloud.inserts
    await one.close()


async def test_one_that_never_will_be_is_refused_at_once(gcp: World) -> None:
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    gcp.cloud.disk(ZONE, "pvc-1")["status"] = "FAILED"
    one = gcp.make()
    with pytest.raises(InvalidRequest, match="pvc-1 of the pod is FAILED"):
        await one.create(launch(volumes=(volume,)))
    with pytest.raises(InvalidRequest, match="behind the pod's claim does not exist"):
        await one.create(launch(volumes=(volume.replace("pvc-1", "pvc-2"),)))
    with pytest.raises(InvalidRequest, match="is no disk of Compute Engine"):
        await one.create(launch(volumes=("vol-0123",)))
    assert not gcp.cloud.inserts
    await one.close()


async def test_one_that_several_may_have_is_not_busy(gcp: World) -> None:
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    gcp.cloud.disk(ZONE, "pvc-1").update(users=["other"], accessMode="READ_WRITE_MANY")
    one = gcp.make()
    made = await one.create(launch(volumes=(volume,)))
    await one.delete(made.id)
    await one.close()


async def test_the_zone_follows_the_volumes(gcp: World) -> None:
    """A zonal disk of the second zone, and a regional one that is there too: nothing is tried in the first."""
    zonal = gcp.cloud.make_disk("europe-west3-b", "pvc-1")
    regional = gcp.cloud.make_regional_disk(["europe-west3-b", "europe-west3-c"], "pvc-2")
    one = gcp.make(FALLBACK_ZONES="europe-west3-b")
    made = await one.create(launch(volumes=(zonal, regional)))
    assert [body["machineType"].split("/")[1] for body in gcp.cloud.inserts] == ["europe-west3-b"]
    assert gcp.cloud.disk("europe-west3", "pvc-2")["users"] == [made.name]
    await one.delete(made.id)
    assert gcp.cloud.disk("europe-west3", "pvc-2")["users"] == []
    await one.close()


async def test_volumes_that_no_zone_of_ours_has_together(gcp: World) -> None:
    zonal = gcp.cloud.make_disk(ZONE, "pvc-1")
    regional = gcp.cloud.make_regional_disk(["europe-west3-b", "europe-west3-c"], "pvc-2")
    one = gcp.make(FALLBACK_ZONES="europe-west3-b")
    with pytest.raises(InvalidRequest) as caught:
        await one.create(launch(volumes=(zonal, regional)))
    assert "disks/pvc-2 in europe-west3-b and europe-west3-c): name theirs in GCP_ZONE" in str(caught.value)
    assert not gcp.cloud.inserts
    await one.close()


async def test_who_waits_for_a_volume_takes_nobodys_place(gcp: World) -> None:
    volume = gcp.cloud.make_disk(ZONE, "pvc-1")
    gcp.cloud.disk(ZONE, "pvc-1")["users"] = ["other"]
    one = gcp.make(CLOUD_CREATES_AT_ONCE="1")
    waiting = asyncio.ensure_future(one.create(launch(volumes=(volume,))))
    other = await one.create(launch("podvm-web-99999999"))
    assert not waiting.done()
    gcp.cloud.disk(ZONE, "pvc-1")["users"] = []
    for each in (other, await waiting):
        await one.delete(each.id)
    await one.close()
