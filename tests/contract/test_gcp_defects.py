"""The defects of the reference's driver for Google Cloud (reference/providers.md 1.3, 5.1, 5.2), a test each."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import InvalidRequest, Misconfigured, ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import Severity, Sizing
from caa.provider.choose import choose
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.world import OWNER, World, launch, world


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_defect_every_client_has_the_credentials(gcp: World) -> None:
    """There only one had; images, types and tags asked the environment. Here it has none, and all is asked."""
    driver = gcp.make(TAGS="team=blue")
    made = await driver.create(launch())
    assert {"images.get", "machineTypes.list", "tagValues.getNamespaced", "zones.get"} <= set(gcp.wire.calls())
    await driver.delete(made.id)
    await driver.close()


async def test_defect_the_smallest_type_that_fits_is_found_in_an_unsorted_list(gcp: World) -> None:
    driver = gcp.make(GCP_INSTANCE_TYPES="n2d-standard-4,n2d-highcpu-8,n2d-standard-2")
    types = await driver.instance_types()
    assert choose(Sizing(vcpus=4, memory_mib=8192), types, default="n2d-standard-2") == "n2d-highcpu-8"
    assert choose(Sizing(memory_mib=16384), types, default="n2d-standard-2") == "n2d-standard-4"
    await driver.close()


async def test_defect_tags_are_asked_for_once_and_only_when_they_are_set(gcp: World) -> None:
    """There all keys and all values were listed for every pod."""
    await gcp.body_of(settings={})
    assert "tagValues.getNamespaced" not in gcp.wire.calls()
    driver = gcp.make(TAGS="team=blue")
    for name in ("podvm-web-00000001", "podvm-web-00000002"):
        await driver.delete((await driver.create(launch(name))).id)
    assert gcp.wire.calls().count("tagValues.getNamespaced") == 1
    await driver.close()


async def test_defect_a_tag_that_does_not_exist_costs_nothing_and_is_told(gcp: World) -> None:
    """There errors were swallowed, and a failed binding removed a healthy pod VM."""
    driver = gcp.make(TAGS="team=green")
    with pytest.raises(Misconfigured, match="TAGS names the resource-manager tag demo-project/team/green"):
        await driver.create(launch())
    assert not gcp.cloud.inserts
    await driver.close()


async def test_defect_tags_are_bound_in_the_insert(gcp: World) -> None:
    body = await gcp.body_of(settings={"TAGS": "team=blue"})
    assert body["params"] == {"resourceManagerTags": {"tagKeys/11": "tagValues/12"}}
    assert body["disks"][0]["initializeParams"]["resourceManagerTags"] == {"tagKeys/11": "tagValues/12"}


async def test_defect_a_wait_that_fails_leaks_nothing(gcp: World) -> None:
    """There the instance was forgotten."""
    gcp.waits = type(gcp.waits)(read_timeout=1.0, long_poll=1.0, running=5, looks=5)
    driver = gcp.make()
    gcp.google.faults.plan("zoneOperations.wait", Fault.UNAUTHORISED, times=ALWAYS)
    with pytest.raises(ProviderError, match="forbidden"):
        await driver.create(launch())
    assert gcp.cloud.ledger.made["instance"] == 1
    await driver.close()


async def test_defect_the_stack_type_is_the_apis_word(gcp: World) -> None:
    for text in ("", "IPV4_Only"):
        body = await gcp.body_of(settings={"GCP_STACK_TYPE": text})
        assert body["networkInterfaces"][0]["stackType"] == "IPV4_ONLY"
    driver = gcp.make(GCP_STACK_TYPE="IPV6_ONLY")
    made = await driver.create(launch())
    assert made.addresses[0].version == 6
    await driver.delete(made.id)
    await driver.close()


@pytest.mark.parametrize(
    "name",
    [
        "podvm",
        "projects/demo-project/global/images/podvm",
        "/projects/demo-project/global/images/podvm",
        "https://www.googleapis.com/compute/v1/projects/demo-project/global/images/podvm",
        "projects/demo-project/global/images/family/podvm",
    ],
)
async def test_defect_every_form_of_an_image_works(gcp: World, name: str) -> None:
    body = await gcp.body_of(settings={"PODVM_IMAGE_NAME": name})
    assert body["disks"][0]["initializeParams"]["sourceImage"] == "projects/demo-project/global/images/podvm"


async def test_defect_public_and_private_addresses_in_order(gcp: World) -> None:
    """There the private ones were dropped, and without a public one the list was empty."""
    gcp.cloud.delays.address = 0.2
    driver = gcp.make(USE_PUBLIC_IP="true")
    made = await driver.create(launch())
    assert [str(one).split(".", maxsplit=1)[0] for one in made.addresses] == ["34", "10"]
    await driver.delete(made.id)
    await driver.close()


async def test_defect_gpus_are_counted_and_attached(gcp: World) -> None:
    """There the annotation found no type, and attached nothing."""
    settings = {
        "DISABLECVM": "true",
        "GCP_INSTANCE_TYPES": "g2-standard-4,n1-standard-8",
        "GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4:2",
    }
    driver = gcp.make(**settings)
    types = await driver.instance_types()
    assert choose(Sizing(gpus=1), types, default="n2d-standard-2") == "g2-standard-4"
    assert choose(Sizing(gpus=2), types, default="n2d-standard-2") == "n1-standard-8"
    await driver.close()
    body = await gcp.body_of(settings=settings, instance_type="n1-standard-8")
    assert body["guestAccelerators"][0]["acceleratorCount"] == 2
    own = await gcp.body_of(settings=settings, instance_type="g2-standard-4")
    assert own["scheduling"]["onHostMaintenance"] == "TERMINATE"
    assert own["disks"][0]["initializeParams"]["diskType"].endswith("/pd-balanced")


async def test_defect_a_zone_without_the_gpu_is_not_tried(gcp: World) -> None:
    settings = {
        "DISABLECVM": "true",
        "GCP_MACHINE_TYPE": "n1-standard-8",
        "GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4:1",
        "GCP_ZONE": "europe-west3-b",
    }
    body = await gcp.body_of(settings=settings | {"FALLBACK_ZONES": "europe-west4-a"})
    assert body["guestAccelerators"][0]["acceleratorType"] == "zones/europe-west4-a/acceleratorTypes/nvidia-tesla-t4"
    assert len(gcp.cloud.inserts) == 1
    driver = gcp.make(**settings)
    with pytest.raises(Misconfigured, match=r"is not offered with its GPUs \(GCP_ACCELERATORS\) in europe-west3-b"):
        await driver.create(launch())
    await driver.close()


async def test_defect_shielded_vm_is_switchable(gcp: World) -> None:
    body = await gcp.body_of(settings={"ENABLE_SECURE_BOOT": "true"})
    assert body["shieldedInstanceConfig"] == {
        "enableSecureBoot": True,
        "enableVtpm": True,
        "enableIntegrityMonitoring": True,
    }


async def test_defect_everything_carries_the_owners_labels(gcp: World) -> None:
    driver = gcp.make(GCP_LABELS="team=blue")
    made = await driver.create(launch())
    assert {one.kind for one in gcp.cloud.ledger.alive()} == {"instance", "disk"}
    for one in gcp.cloud.ledger.alive():
        assert one.tags == {
            "caa-cluster": OWNER.cluster, "caa-node": OWNER.node, "caa-sandbox": "sandbox-0a1b2c3d",
            "caa-name": made.name, "caa-namespace": "shop", "caa-pod": "web", "team": "blue",
        }  # fmt: skip
    await driver.delete(made.id)
    await driver.close()


async def test_defect_delete_of_what_is_long_gone_is_success(gcp: World) -> None:
    """There 404 was an error for ever."""
    driver = gcp.make()
    for name in ("", "podvm-gone-00000000", "disk/europe-west3-a/podvm-gone-00000000", "A B"):
        await driver.delete(InstanceId(name))
    await driver.close()


async def test_defect_user_data_that_is_too_long_never_reaches_the_cloud(gcp: World) -> None:
    driver = gcp.make()
    with pytest.raises(InvalidRequest, match="262144"):
        await driver.create(launch(user_data=b"#" * 196609))
    assert gcp.wire.calls() == []
    made = await driver.create(launch(user_data=b"#" * 196608))
    await driver.delete(made.id)
    await driver.close()


async def test_defect_volumes_of_another_zone_cost_nothing(gcp: World) -> None:
    volume = gcp.cloud.make_disk("europe-west3-b", "pvc-2")
    driver = gcp.make()
    with pytest.raises(InvalidRequest, match="FALLBACK_ZONES"):
        await driver.create(launch(volumes=(volume,)))
    assert not gcp.cloud.inserts
    there = gcp.make(FALLBACK_ZONES="europe-west3-b")
    made = await there.create(launch(volumes=(volume,)))
    await there.delete(made.id)
    assert gcp.cloud.disk("europe-west3-b", "pvc-2")["users"] == []
    await driver.close()
    await there.close()


async def test_defect_the_endpoint_holds_for_operations(gcp: World) -> None:
    """providers.md 6.3: the SDK's own wait goes to Google whatever the endpoint is."""
    await gcp.body_of(settings={})
    assert "zoneOperations.wait" in gcp.wire.calls()


async def test_defect_there_was_only_one_zone(gcp: World) -> None:
    """And a type whose zone was full ended the pod."""
    driver = gcp.make(FALLBACK_ZONES="europe-west3-b")
    gcp.google.faults.full = {("", "europe-west3-a")}
    made = await driver.create(launch())
    assert gcp.cloud.inserts[-1]["machineType"] == "zones/europe-west3-b/machineTypes/n2d-standard-2"
    assert gcp.cloud.ledger.made["instance"] == 1
    await driver.delete(made.id)
    await driver.close()


async def test_defect_the_default_settings_can_make_nothing_and_say_so_with_the_first_pod(gcp: World) -> None:
    """e2-medium and confidential: `caa doctor` and CLOUD_CONFIG_VERIFY tell before there is a pod."""
    driver = gcp.make(GCP_MACHINE_TYPE="")
    told = "; ".join(one.detail for one in await driver.check() if one.severity is Severity.ERROR)
    assert "DISABLECVM is false, and the instance type e2-medium has no TEE" in told
    assert not gcp.cloud.inserts
    await driver.close()


async def test_defect_a_repeated_create_made_a_second_pod_vm(gcp: World) -> None:
    """No requestId: Kata's retry of StartVM, and a restart, are the same instance here."""
    made = [await gcp.make().create(launch()) for _ in range(3)]
    assert len({one.id for one in made}) == gcp.cloud.ledger.made["instance"] == 1
    keys = [noted.request.query.get("requestId") for noted in gcp.wire.journal if noted.call == "instances.insert"]
    assert len(keys) == 1
    assert uuid.UUID(keys[0]).version == 5
    await gcp.make().delete(made[0].id)
