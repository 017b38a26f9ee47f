"""Every call of a driver's life x every fault: an empty ledger or a found orphan, and a message with the remedy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import (
    CapacityError,
    ConfigError,
    CredentialsError,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)
from caa.provider.contract import Provider
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.identity import federation_file, key_file
from tests.fakes.gcp.world import OWNER, World, launch, plain, world
from tests.fakes.golden import assert_golden

MAKING = (
    "instances.insert", "instances.aggregatedList", "zoneOperations.wait", "machineTypes.list", "images.get",
    "zones.get", "tagValues.namespaced", "disks.get",
)  # fmt: skip
ENDING = ("instances.aggregatedList", "instances.delete", "disks.aggregatedList")
FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)
KINDS = {
    Fault.THROTTLED: Throttled,
    Fault.UNAUTHORISED: CredentialsError,
    Fault.CAPACITY: CapacityError,
    Fault.QUOTA: QuotaError,
    Fault.TIMEOUT: ProviderUnavailable,
    Fault.LOST_ANSWER: ProviderUnavailable,
    Fault.MALFORMED: ProviderUnavailable,
    Fault.RESET: ProviderUnavailable,
}


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = replace(made.waits, read_timeout=0.3, long_poll=0.3, looks=5, undo=200, running=40, address=20)
        yield made


def driver(gcp: World, **other: str) -> Provider:
    return gcp.make(USE_PUBLIC_IP="true", TAGS="team=blue", **other)


async def outcome(driver: Provider, gcp: World, name: str = "data") -> str:
    """Create a pod VM with everything; what became of it."""
    volume = gcp.cloud.make_disk("europe-west3-a", name)
    try:
        made = await driver.create(launch(volumes=(volume,)))
    except ProviderError as error:
        return str(error)
    assert made.addresses
    return "made"


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", MAKING)
async def test_a_fault_once_while_making(gcp: World, call: str, fault: Fault) -> None:
    """What may be repeated is; whatever the outcome, the sweep leaves nothing."""
    one = driver(gcp)
    gcp.google.faults.plan(call, fault)
    told = await outcome(one, gcp)
    assert call in gcp.wire.calls()
    assert told == "made" or fault in FINAL, (fault, told)
    assert await gcp.swept(one) == [] or told == "made", (fault, told)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", ENDING)
async def test_a_fault_once_while_ending(gcp: World, call: str, fault: Fault) -> None:
    one = driver(gcp)
    made = await one.create(launch())
    gcp.google.faults.plan(call, fault)
    with suppress(*((ProviderError,) if fault in FINAL else ())):
        await one.delete(made.id)
    await gcp.swept(one)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_that_stays_names_its_remedy(gcp: World, fault: Fault) -> None:
    """The golden file holds what an operator reads; remove it to write it anew."""
    lines = []
    for call in ("images.get", "instances.insert", "zoneOperations.wait"):
        one = driver(gcp)
        gcp.google.faults.plan(call, fault, times=ALWAYS)
        told = await outcome(one, gcp)
        assert told != "made"
        lines.append(f"{call}\n    {plain(told)}\n")
        left = await gcp.swept(one)
        # What a lost answer of the cloud made is removed at once, or found by its labels.
        assert not left or fault in (Fault.LOST_ANSWER, Fault.MALFORMED)
        await one.close()
    assert_golden(f"gcp-messages-{fault.replace(' ', '-')}.txt", "".join(lines))


@pytest.mark.parametrize("fault", list(Fault))
async def test_each_fault_is_an_error_of_its_own_type(gcp: World, fault: Fault) -> None:
    one = gcp.make()
    gcp.google.faults.plan("instances.insert", fault, times=ALWAYS)
    with pytest.raises(KINDS[fault]) as caught:
        await one.create(launch())
    assert caught.value.retryable is KINDS[fault].retryable
    await gcp.swept(one)
    await one.close()


async def test_a_lost_answer_is_the_same_instance(gcp: World) -> None:
    one = gcp.make()
    gcp.google.faults.plan("instances.insert", Fault.LOST_ANSWER, times=2)
    made = await one.create(launch())
    assert gcp.cloud.ledger.made["instance"] == 1
    assert [listed.id for listed in await one.list_owned(OWNER)] == [made.id]
    await one.delete(made.id)
    await one.close()


async def test_a_crash_after_the_call_finds_the_instance(gcp: World) -> None:
    """providers.md A1: a restart while CreateInstance runs left a pod VM that nothing knew about."""
    first = gcp.make()
    gcp.cloud.delays.making = 0.4
    creating = asyncio.ensure_future(first.create(launch()))
    await asyncio.to_thread(gcp.cloud.began.wait)
    again = gcp.make()  # another process: other user data, the first one is never heard of again
    made = await again.create(launch(user_data=b"#cloud-config\n# another key\n"))
    assert (await creating).id == made.id
    assert gcp.cloud.ledger.made["instance"] == 1
    await again.delete(made.id)
    await first.close()
    await again.close()


async def test_a_name_that_was_made_and_removed_is_made_anew(gcp: World) -> None:
    """The cloud answers a request id that it knows with the old operation, whose instance is long gone."""
    one = gcp.make()
    for _ in range(3):
        made = await one.create(launch())
        await one.delete(made.id)
    assert gcp.cloud.ledger.made["instance"] == 3
    await one.close()


async def test_throttling_obeys_retry_after(gcp: World) -> None:
    one = gcp.make()
    gcp.google.faults.retry_after = 20  # 0.4 s of the driver's clock
    gcp.google.faults.plan("instances.insert", Fault.THROTTLED)
    made = await one.create(launch())
    first, second = (noted.at for noted in gcp.wire.journal if noted.call == "instances.insert")
    assert second - first >= 0.4
    await one.delete(made.id)
    await one.close()


async def test_no_room_moves_on_in_order_and_is_remembered(gcp: World) -> None:
    one = gcp.make(FALLBACK_ZONES="europe-west3-b", FALLBACK_TYPES="c2d-standard-2,n2d-standard-4")
    gcp.google.faults.full = {("n2d-standard-2", "")}
    made = await one.create(launch())
    # c2d has SEV only: a pod VM that was to have SEV-SNP never becomes a weaker one.
    assert made.instance_type == "n2d-standard-4"
    before = len(gcp.wire.calls())
    again = await one.create(launch("podvm-web-99999999"))
    assert gcp.wire.calls()[before:].count("instances.insert") == 1
    for each in (made, again):
        await one.delete(each.id)
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


async def test_spot_first_then_on_demand(gcp: World) -> None:
    one = gcp.make(PURCHASE_OPTIONS="spot,on-demand")
    gcp.google.faults.plan("instances.insert", Fault.CAPACITY)
    made = await one.create(launch())
    assert gcp.cloud.inserts[-1]["scheduling"]["provisioningModel"] == "STANDARD"
    await one.delete(made.id)
    await one.close()


async def test_no_room_anywhere_names_every_place(gcp: World) -> None:
    one = gcp.make(FALLBACK_ZONES="europe-west3-b")
    gcp.google.faults.full = {("", "")}
    with pytest.raises(CapacityError) as caught:
        await one.create(launch())
    assert str(caught.value).count("ZONE_RESOURCE_POOL_EXHAUSTED") == 2
    assert "n2d-standard-2 in europe-west3-b" in str(caught.value)
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


@pytest.mark.parametrize("key", ["GCP_PROJECT_ID", "GCP_ZONE", "GCP_NETWORK", "PODVM_IMAGE_NAME"])
async def test_a_missing_setting_is_named(gcp: World, key: str) -> None:
    with pytest.raises((ConfigError, Misconfigured), match=key):
        await gcp.make(**{key: ""}).create(launch())
