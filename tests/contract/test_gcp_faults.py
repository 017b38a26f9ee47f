"""What goes wrong on Google Cloud alone, and credentials; test_faults.py has what goes wrong on every cloud."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import CapacityError, CredentialsError
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.identity import federation_file, key_file
from tests.fakes.gcp.world import World, launch, world


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


class TestCredentials:
    """Every client has them, every kind works, and they rotate in mid-run."""

    async def test_a_rotated_key_is_taken_up_without_a_restart(self, gcp: World, tmp_path: Path) -> None:
        """The file that GOOGLE_APPLICATION_CREDENTIALS names was exchanged, and the old key withdrawn."""
        path = tmp_path / "key.json"
        path.write_text(key_file(gcp.wire.url, 0))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
            one = gcp.make(GCP_CREDENTIALS="")
            first = await one.create(launch())
            path.write_text(key_file(gcp.wire.url, 1))
            gcp.google.identity.keys = {1}
            gcp.google.identity.revoke()
            second = await one.create(launch("podvm-web-99999999"))
            for each in (first, second):
                await one.delete(each.id)
            await one.close()

    async def test_a_withdrawn_key_is_told(self, gcp: World) -> None:
        one = gcp.make()
        gcp.google.identity.keys = set()
        with pytest.raises(CredentialsError, match="GCP_CREDENTIALS") as caught:
            await one.create(launch())
        assert "PRIVATE KEY" not in str(caught.value)
        await one.close()

    async def test_workload_identity_federation(self, gcp: World, tmp_path: Path) -> None:
        """The cluster's token is exchanged, and read anew each time."""
        token = tmp_path / "token"
        token.write_text("cluster-token-1")
        one = gcp.make(GCP_CREDENTIALS=federation_file(gcp.wire.url, str(token)))
        made = await one.create(launch())
        token.write_text("cluster-token-2")
        gcp.google.identity.subjects = {"cluster-token-2"}
        gcp.google.identity.revoke()
        await one.delete(made.id)
        assert set(gcp.google.identity.given) == {"federation"}
        assert len(gcp.google.identity.given) >= 2
        await one.close()

    async def test_the_metadata_server_of_gke(self, gcp: World) -> None:
        """No key anywhere: GKE workload identity, or the node's own service account."""
        with pytest.MonkeyPatch.context() as patch:
            host = gcp.wire.url.removeprefix("http://")
            patch.setenv("GCE_METADATA_HOST", host)
            patch.setenv("GCE_METADATA_IP", host)
            patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            patch.setenv("HOME", str(gcp.folder))
            one = gcp.make(GCP_CREDENTIALS="")
            made = await one.create(launch())
            await one.delete(made.id)
            assert set(gcp.google.identity.given) == {"metadata"}
            await one.close()


async def test_200_pods_at_once_keep_the_rate_and_all_start(gcp: World) -> None:
    """The cloud refuses more than its limit; nobody starves, and nobody needs more calls than the budget."""
    gcp.waits = replace(gcp.waits, read_timeout=20.0, long_poll=20.0, running=3000, address=3000, gone=9000, undo=3000)
    gcp.google.faults.calls_per_second = 150  # 3 a second of the driver's clock
    gcp.cloud.page = 60
    one = gcp.make(CLOUD_CALLS_PER_SECOND="2")
    names = [f"podvm-web-{number:08x}" for number in range(200)]
    made = await asyncio.gather(*(one.create(launch(name)) for name in names))
    assert len({one.id for one in made}) == 200
    await asyncio.gather(*(one.delete(each.id) for each in made))
    assert gcp.wire.calls(fault=Fault.THROTTLED) == []
    assert gcp.wire.busiest_second() <= 150
    await one.close()
