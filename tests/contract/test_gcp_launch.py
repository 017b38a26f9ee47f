"""What is asked of Compute Engine, as readable files, and a named test for each defect of the reference's driver."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from caa.errors import ConfigError, InvalidRequest, Misconfigured, ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import Sizing
from caa.provider.choose import choose
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.world import OWNER, World, launch, world
from tests.fakes.golden import assert_golden


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def body_of(gcp: World, *, settings: Mapping[str, str], **request: object) -> dict[str, Any]:
    """The body of one insert, whose instance is removed again."""
    driver = gcp.make(**settings)
    made = await driver.create(launch(**request))  # type: ignore[arg-type]
    await driver.delete(made.id)
    await driver.close()
    return gcp.cloud.inserts[-1]


def readable(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


class TestGolden:
    """One plain, one confidential, one fully loaded launch. Remove a file to write it anew."""

    async def test_plain(self, gcp: World) -> None:
        assert_golden("gcp-launch-plain.json", readable(await body_of(gcp, settings={"DISABLECVM": "true"})))

    async def test_confidential(self, gcp: World) -> None:
        assert_golden("gcp-launch-confidential.json", readable(await body_of(gcp, settings={})))

    async def test_fully_loaded(self, gcp: World) -> None:
        settings = {
            "DISABLECVM": "true",
            "GCP_MACHINE_TYPE": "n1-standard-8",
            "GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4:2",
            "EXTERNAL_NETWORK_VIA_PODVM": "true",
            "GCP_EXTERNAL_NETWORK": "outside",
            "GCP_EXTERNAL_SUBNETWORK": "outside",
            "GCP_STACK_TYPE": "IPV4_IPV6",
            "USE_PUBLIC_IP": "true",
            "GCP_NETWORK_TAGS": "podvm",
            "ENABLE_SECURE_BOOT": "true",
            "ROOT_VOLUME_SIZE": "60",
            "GCP_DISK_TYPE": "pd-ssd",
            "GCP_KMS_KEY": "projects/demo-project/locations/europe-west3/keyRings/r/cryptoKeys/k",
            "PURCHASE_OPTIONS": "spot",
            "TAGS": "team=blue",
            "GCP_LABELS": "cost=7",
        }
        volume = gcp.cloud.make_disk("europe-west3-a", "pvc-1")
        assert_golden("gcp-launch-loaded.json", readable(await body_of(gcp, settings=settings, volumes=(volume,))))


class TestDefectsOfTheReference:
    """providers.md 5.1 and 5.2, the part about Google Cloud."""

    async def test_every_client_has_the_credentials(self, gcp: World) -> None:
        """There only one had; images, types and tags asked the environment. Here it has none, and all is asked."""
        driver = gcp.make(TAGS="team=blue")
        made = await driver.create(launch())
        assert {"images.get", "machineTypes.list", "tagValues.namespaced", "zones.get"} <= set(gcp.wire.calls())
        await driver.delete(made.id)
        await driver.close()

    async def test_the_smallest_type_that_fits_is_found_in_an_unsorted_list(self, gcp: World) -> None:
        driver = gcp.make(GCP_INSTANCE_TYPES="n2d-standard-4,n2d-highcpu-8,n2d-standard-2")
        types = await driver.instance_types()
        assert choose(Sizing(vcpus=4, memory_mib=8192), types, default="n2d-standard-2") == "n2d-highcpu-8"
        assert choose(Sizing(memory_mib=16384), types, default="n2d-standard-2") == "n2d-standard-4"
        await driver.close()

    async def test_tags_are_asked_for_once_and_only_when_they_are_set(self, gcp: World) -> None:
        """There all keys and all values were listed for every pod."""
        await body_of(gcp, settings={})
        assert "tagValues.namespaced" not in gcp.wire.calls()
        driver = gcp.make(TAGS="team=blue")
        for name in ("podvm-web-00000001", "podvm-web-00000002"):
            await driver.delete((await driver.create(launch(name))).id)
        assert gcp.wire.calls().count("tagValues.namespaced") == 1
        await driver.close()

    async def test_a_tag_that_does_not_exist_costs_nothing_and_is_told(self, gcp: World) -> None:
        """There errors were swallowed, and a failed binding removed a healthy pod VM."""
        driver = gcp.make(TAGS="team=green")
        with pytest.raises(Misconfigured, match="TAGS names the resource-manager tag demo-project/team/green"):
            await driver.create(launch())
        assert not gcp.cloud.inserts
        await driver.close()

    async def test_tags_are_bound_in_the_insert(self, gcp: World) -> None:
        body = await body_of(gcp, settings={"TAGS": "team=blue"})
        assert body["params"] == {"resourceManagerTags": {"tagKeys/11": "tagValues/12"}}
        assert body["disks"][0]["initializeParams"]["resourceManagerTags"] == {"tagKeys/11": "tagValues/12"}

    async def test_a_wait_that_fails_leaks_nothing(self, gcp: World) -> None:
        """There the instance was forgotten."""
        gcp.waits = type(gcp.waits)(read_timeout=1.0, long_poll=1.0, running=5, looks=5)
        driver = gcp.make()
        gcp.google.faults.plan("zoneOperations.wait", Fault.UNAUTHORISED, times=ALWAYS)
        with pytest.raises(ProviderError, match="forbidden"):
            await driver.create(launch())
        assert gcp.cloud.ledger.made["instance"] == 1
        await driver.close()

    async def test_the_stack_type_is_the_apis_word(self, gcp: World) -> None:
        assert (await body_of(gcp, settings={}))["networkInterfaces"][0]["stackType"] == "IPV4_ONLY"
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
    async def test_every_form_of_an_image_works(self, gcp: World, name: str) -> None:
        body = await body_of(gcp, settings={"PODVM_IMAGE_NAME": name})
        assert body["disks"][0]["initializeParams"]["sourceImage"] == "projects/demo-project/global/images/podvm"

    async def test_public_and_private_addresses_in_order(self, gcp: World) -> None:
        """There the private ones were dropped, and without a public one the list was empty."""
        gcp.cloud.delays.address = 0.2
        driver = gcp.make(USE_PUBLIC_IP="true")
        made = await driver.create(launch())
        assert [str(one).split(".", maxsplit=1)[0] for one in made.addresses] == ["34", "10"]
        await driver.delete(made.id)
        await driver.close()

    async def test_gpus_are_counted_and_attached(self, gcp: World) -> None:
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
        body = await body_of(gcp, settings=settings, instance_type="n1-standard-8")
        assert body["guestAccelerators"][0]["acceleratorCount"] == 2
        own = await body_of(gcp, settings=settings, instance_type="g2-standard-4")
        assert own["scheduling"]["onHostMaintenance"] == "TERMINATE"
        assert own["disks"][0]["initializeParams"]["diskType"].endswith("/pd-balanced")

    async def test_shielded_vm_is_switchable(self, gcp: World) -> None:
        body = await body_of(gcp, settings={"ENABLE_SECURE_BOOT": "true"})
        assert body["shieldedInstanceConfig"] == {
            "enableSecureBoot": True,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        }

    async def test_everything_carries_the_owners_labels(self, gcp: World) -> None:
        driver = gcp.make(GCP_LABELS="team=blue")
        made = await driver.create(launch())
        assert {one.kind for one in gcp.cloud.ledger.alive()} == {"instance", "disk"}
        for one in gcp.cloud.ledger.alive():
            assert one.tags["caa-cluster"] == OWNER.cluster, one
            assert one.tags["team"] == "blue", one
        await driver.delete(made.id)
        await driver.close()

    async def test_delete_of_what_is_long_gone_is_success(self, gcp: World) -> None:
        """There 404 was an error for ever."""
        driver = gcp.make()
        for name in ("", "podvm-gone-00000000", "disk/europe-west3-a/podvm-gone-00000000", "A B"):
            await driver.delete(InstanceId(name))
        await driver.close()

    async def test_user_data_that_is_too_long_never_reaches_the_cloud(self, gcp: World) -> None:
        driver = gcp.make()
        with pytest.raises(InvalidRequest, match="262144"):
            await driver.create(launch(user_data=b"#" * 196609))
        assert gcp.wire.calls() == []
        made = await driver.create(launch(user_data=b"#" * 196608))
        await driver.delete(made.id)
        await driver.close()

    async def test_volumes_of_another_zone_cost_nothing(self, gcp: World) -> None:
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

    async def test_the_endpoint_holds_for_operations(self, gcp: World) -> None:
        """providers.md 6.3: the SDK's own wait goes to Google whatever the endpoint is."""
        await body_of(gcp, settings={})
        assert "zoneOperations.wait" in gcp.wire.calls()


class TestConfidential:
    """A confidential pod VM never becomes an ordinary or a weaker one."""

    @pytest.mark.parametrize(
        ("machine_type", "named", "tee"),
        [
            ("n2d-standard-2", "", "SEV_SNP"),
            ("n2d-standard-2", "SEV", "SEV"),
            ("c2d-standard-2", "", "SEV"),
            ("c3-standard-4", "", "TDX"),
        ],
    )
    async def test_the_tee_follows_the_machine_type(self, gcp: World, machine_type: str, named: str, tee: str) -> None:
        settings = {"GCP_MACHINE_TYPE": machine_type, "GCP_CONFIDENTIAL_TYPE": named}
        body = await body_of(gcp, settings=settings)
        assert body["confidentialInstanceConfig"]["confidentialInstanceType"] == tee

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"GCP_MACHINE_TYPE": "e2-medium"}, "has no TEE here"),
            ({"GCP_MACHINE_TYPE": "n9-huge"}, "not in the cloud's catalogue"),
            ({"GCP_CONFIDENTIAL_TYPE": "TDX"}, "GCP_CONFIDENTIAL_TYPE is TDX"),
            ({"PODVM_IMAGE_NAME": "podvm-plain"}, "SEV_SNP_CAPABLE"),
            ({"PODVM_IMAGE_NAME": "podvm-arm"}, "is for arm64"),
            ({"GCP_ZONE": "europe-west3-c"}, "not offered with its TEE in europe-west3-c"),
        ],
    )
    async def test_what_cannot_be_is_refused_before_it_costs(
        self, gcp: World, settings: dict[str, str], told: str
    ) -> None:
        driver = gcp.make(**settings)
        with pytest.raises(Misconfigured, match=told):
            await driver.create(launch())
        assert not gcp.cloud.inserts
        await driver.close()

    async def test_pods_are_offered_types_with_the_tee_only(self, gcp: World) -> None:
        driver = gcp.make(GCP_INSTANCE_TYPES="e2-medium,c2d-standard-2,n2d-standard-4", GCP_CONFIDENTIAL_TYPE="SEV_SNP")
        assert {one.name for one in await driver.instance_types()} == {"n2d-standard-2", "n2d-standard-4"}
        await driver.close()


class TestAcceptance:
    """user-pains.md 5.1, and what an operator gets wrong."""

    async def test_an_image_that_does_not_exist(self, gcp: World) -> None:
        driver = gcp.make()
        with pytest.raises(InvalidRequest, match=r"^notFound: .*PODVM_IMAGE_NAME"):
            await driver.create(launch(image="no-such-image"))
        with pytest.raises(InvalidRequest, match="no image of this cloud"):
            await driver.create(launch(image="../../x"))
        await driver.close()

    async def test_images_that_the_operator_does_not_allow(self, gcp: World) -> None:
        driver = gcp.make(IMAGE_ALLOWLIST="none")
        with pytest.raises(InvalidRequest, match="IMAGE_ALLOWLIST"):
            await driver.create(launch(image="podvm-plain"))
        await driver.close()

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"GCP_CREDENTIALS": "/etc/key.json"}, "GCP_CREDENTIALS is not a JSON object"),
            ({"GCP_CREDENTIALS": '{"type": "gdch"}'}, "GCP_CREDENTIALS has another type"),
            ({"GCP_LABELS": "Team=blue"}, "GCP_LABELS: the key 'Team'"),
            ({"GCP_ACCELERATORS": "n1-standard-8=T4 x 2"}, "GCP_ACCELERATORS"),
        ],
    )
    async def test_settings_that_cannot_work(self, gcp: World, settings: dict[str, str], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            gcp.make(**settings)

    async def test_a_name_that_is_somebody_elses(self, gcp: World) -> None:
        driver = gcp.make()
        made = await driver.create(launch())
        gcp.cloud.instance("europe-west3-a", made.name)["labels"] = {}
        with pytest.raises(InvalidRequest, match="exists and is not ours"):
            await driver.create(launch())
        await driver.delete(made.id)
        gcp.cloud.ledger.remove("disk", "europe-west3-a/podvm-web-0a1b2c3d")
        await driver.close()
