"""What is asked of Compute Engine, as readable files; what is refused before it costs anything."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CapacityError, ConfigError, InstanceTypeError, InvalidRequest, Misconfigured
from caa.model.ids import InstanceId
from caa.model.instance import Sizing
from caa.provider.choose import choose
from tests.fakes.gcp.world import OWNER, World, launch, world
from tests.fakes.golden import assert_golden


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def readable(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


class TestGolden:
    """One plain, one confidential, one fully loaded launch. Remove a file to write it anew."""

    async def test_plain(self, gcp: World) -> None:
        assert_golden("gcp-launch-plain.json", readable(await gcp.body_of(settings={"DISABLECVM": "true"})))

    async def test_confidential(self, gcp: World) -> None:
        assert_golden("gcp-launch-confidential.json", readable(await gcp.body_of(settings={})))

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
        assert_golden("gcp-launch-loaded.json", readable(await gcp.body_of(settings=settings, volumes=(volume,))))


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
        body = await gcp.body_of(settings=settings)
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

    async def test_a_zone_that_has_the_type_and_not_the_tee(self, gcp: World) -> None:
        """No call of Google's tells which zones have TDX; the insert fails as if there were no room."""
        gcp.cloud.zones["europe-west3-b"].append("Intel Sapphire Rapids")
        gcp.cloud.without_tee = {("TDX", "europe-west3-a")}
        driver = gcp.make(GCP_MACHINE_TYPE="c3-standard-4", FALLBACK_ZONES="europe-west3-b")
        made = await driver.create(launch())
        assert gcp.cloud.inserts[-1]["machineType"].startswith("zones/europe-west3-b/")
        assert gcp.cloud.inserts[-1]["confidentialInstanceConfig"]["confidentialInstanceType"] == "TDX"
        await driver.delete(made.id)
        gcp.cloud.without_tee.add(("TDX", "europe-west3-b"))
        with pytest.raises(CapacityError, match="a zone that lacks the TEE says the same"):
            await driver.create(launch("podvm-web-99999999"))
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

    async def test_types(self, gcp: World) -> None:
        driver = gcp.make(GCP_INSTANCE_TYPES="n2d-standard-4")
        types = await driver.instance_types()
        for sizing, told in (
            (Sizing(instance_type="n9-huge"), r'"n9-huge"\) is not part of supported instance types list'),
            (Sizing(vcpus=2, memory_mib=18432), r"given vcpus \(2\) and memory \(18432\)"),
            (Sizing(gpus=1), r"given gpus \(1\)"),
        ):
            with pytest.raises(InstanceTypeError, match=told):
                choose(sizing, types, default=driver.capabilities.default_type)
        await driver.close()

    async def test_the_cheapest_that_fits_where_prices_are_set(self, gcp: World) -> None:
        settings = {"GCP_INSTANCE_TYPES": "n2d-standard-4,n2d-highcpu-8", "DISABLECVM": "true"}
        asked = Sizing(vcpus=4, memory_mib=8192)
        for prices, chosen in (
            ("", "n2d-highcpu-8"),
            ("n2d-highcpu-8=0.3,n2d-standard-4=0.17", "n2d-standard-4"),
        ):
            driver = gcp.make(**settings, INSTANCE_TYPE_PRICES=prices)
            assert choose(asked, await driver.instance_types(), default="n2d-standard-2") == chosen
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
            ({"GCP_LABELS": ",".join(f"k{number}=v" for number in range(53))}, "GCP_LABELS: 53 tags"),
            ({"TAGS": ",".join(f"k{number}=v" for number in range(51))}, "TAGS: 51 tags"),
            ({"GCP_UNIVERSE_DOMAIN": "example.com"}, "GCP_UNIVERSE_DOMAIN is example.com"),
            ({"GCP_STACK_TYPE": "IPV5"}, "GCP_STACK_TYPE"),
            ({"GCP_CONFIDENTIAL_TYPE": "SGX"}, "GCP_CONFIDENTIAL_TYPE"),
        ],
    )
    async def test_settings_that_cannot_work(self, gcp: World, settings: dict[str, str], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            gcp.make(**settings)

    async def test_a_name_that_is_somebody_elses(self, gcp: World) -> None:
        """It is neither taken for ours nor deleted, in the same zone or in another one."""
        theirs = await gcp.make(GCP_ZONE="europe-west3-b").create(launch())
        found = gcp.cloud.instance("europe-west3-b", theirs.name)
        labels, found["labels"] = found["labels"], {"team": "another"}
        driver = gcp.make()
        for asked in (driver.create(launch()), driver.delete(theirs.id)):
            with pytest.raises(InvalidRequest, match="exists and is not ours"):
                await asked
        assert found["status"] == "RUNNING"
        assert await driver.list_owned(OWNER) == []
        found["labels"] = labels
        await driver.delete(theirs.id)
        await driver.close()

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            (
                {"GCP_SUBNETWORK": "projects/demo-project/regions/europe-west4/subnetworks/pods"},
                "is not in the region of the zone europe-west3-a: correct GCP_SUBNETWORK",
            ),
        ],
    )
    async def test_settings_that_do_not_go_together(self, gcp: World, settings: dict[str, str], told: str) -> None:
        driver = gcp.make(**settings)
        with pytest.raises(Misconfigured, match=told):
            await driver.create(launch())
        assert not gcp.cloud.inserts
        await driver.close()


async def test_the_catalogue_is_asked_in_batches_and_kept_on_disk(gcp: World) -> None:
    """Sixty types are two calls a zone, custom ones a call each; another process asks for none of them."""
    many = [f"n2d-standard-{number}" for number in range(2, 60)]
    settings = {"GCP_INSTANCE_TYPES": ",".join([*many, "n2d-custom-2-4096", "t9-none"]), "FALLBACK_ZONES": ""}
    first = gcp.make(**settings)
    found = {one.name: one for one in await first.instance_types()}
    assert set(found) == {"n2d-standard-2", "n2d-standard-4", "n2d-custom-2-4096"}
    assert (found["n2d-custom-2-4096"].vcpus, found["n2d-custom-2-4096"].memory_mib) == (2, 4096)
    assert (gcp.wire.calls().count("machineTypes.list"), gcp.wire.calls().count("machineTypes.get")) == (2, 1)
    await first.close()
    again = gcp.make(**settings)
    assert {one.name for one in await again.instance_types()} == set(found)
    assert gcp.wire.calls().count("machineTypes.list") == 2
    await again.close()


async def test_the_console(gcp: World) -> None:
    """The serial log of port 1; nothing for what is gone."""
    driver = gcp.make()
    made = await driver.create(launch())
    assert await driver.console(made.id) == b"Linux version 6.1\n"
    await driver.delete(made.id)
    assert await driver.console(made.id) == b""
    assert await driver.console(InstanceId("disk/europe-west3-a/x")) == b""
    await driver.close()
