"""What `azure` asks of Azure, as golden bodies, and what it refuses before anything is asked for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from caa.errors import ConfigError, InvalidRequest, Misconfigured, ProviderError
from caa.model.instance import Severity
from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.world import World, launch, plain, world
from tests.fakes.golden import assert_golden


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def body_of(azure: World, volumes: tuple[str, ...] = (), **settings: str) -> dict[str, Any]:
    """The body of the PUT of one launch, which is undone again."""
    one = azure.make(**settings)
    made = await one.create(launch(volumes=volumes))
    await one.delete(made.id)
    await one.close()
    found: dict[str, Any] = azure.puts()[-1]
    return found


@pytest.mark.parametrize("kind", ["plain", "confidential", "loaded"])
async def test_golden_bodies(azure: World, kind: str) -> None:
    """Remove the golden file, run, and review what comes."""
    plain_image = azure.azure.site.image.replace("/sealed/", "/plain/")
    settings = {
        "plain": {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D2s_v5", "AZURE_IMAGE_ID": plain_image},
        "confidential": {},
        "loaded": azure.loaded(),
    }[kind]
    volumes = (azure.azure.estate.make_disk("data", zone="2"),) if kind == "loaded" else ()
    body = await body_of(azure, volumes, **settings)
    assert_golden(f"azure-{kind}.json", plain(json.dumps(body, indent=2, sort_keys=True), azure) + "\n")


@pytest.mark.parametrize("kind", ["VMGuestStateOnly", "DiskWithVMGuestState", "NonPersistedTPM"])
async def test_golden_bodies_of_each_confidential_encryption(azure: World, kind: str) -> None:
    """What is asked for security and disk, the same for all but the kind; secure boot only where Azure demands it."""
    whole = {"ENABLE_SECURE_BOOT": "true"} if kind == "DiskWithVMGuestState" else {}
    asked = (await body_of(azure, AZURE_CVM_ENCRYPTION=kind, **whole))["properties"]
    told = {"securityProfile": asked["securityProfile"], "osDisk": asked["storageProfile"]["osDisk"]}
    assert_golden(f"azure-{kind}.json", json.dumps(told, indent=2, sort_keys=True) + "\n")


async def test_ordinary_vms_get_trusted_launch_where_the_image_can(azure: World) -> None:
    """providers.md 1.2: the reference gives them no security profile at all."""
    ordinary = {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D2s_v5"}
    assert "TrustedLaunch" in json.dumps(await body_of(azure, **ordinary))
    assert "securityProfile" not in json.dumps(await body_of(azure, **ordinary, AZURE_TRUSTED_LAUNCH="off"))


async def test_every_resource_carries_the_owner(azure: World) -> None:
    one = azure.make(USE_PUBLIC_IP="true", TAGS="team=red")
    made = await one.create(launch())
    kinds = set()
    for resource in azure.azure.ledger.alive():
        kinds.add(resource.kind)
        assert resource.tags["caa-cluster"] == "c1", resource
        assert resource.tags["caa-node"] == "n1", resource
        assert resource.tags["caa-sandbox"] == "sandbox-0a1b2c3d", resource
        assert (resource.tags["caa-namespace"], resource.tags["caa-pod"]) == ("shop", "web"), resource
        assert resource.tags["team"] == "red", resource
    assert kinds == {"vm", "disk", "nic", "address"}
    await one.delete(made.id)
    await one.close()


async def test_a_confidential_request_never_becomes_an_ordinary_vm(azure: World) -> None:
    for settings, words in (
        ({"AZURE_INSTANCE_SIZE": "Standard_D2s_v5"}, "has no TEE"),
        ({"AZURE_INSTANCE_SIZE": "Standard_DC9as_v9"}, "not in the cloud's catalogue"),
        ({"AZURE_IMAGE_ID": azure.azure.site.image.replace("/sealed/", "/plain/")}, "ConfidentialVmSupported"),
        ({"AZURE_IMAGE_ID": azure.azure.site.image.replace("/sealed/", "/arm/")}, "is for arm64"),
    ):
        one = azure.make(**settings)
        with pytest.raises(Misconfigured, match=words):
            await one.create(launch())
        await one.close()
    assert azure.puts() == []


async def test_a_fallback_has_the_tee_of_the_first(azure: World) -> None:
    """Neither the ordinary size nor the one with TDX takes the place of one with SEV-SNP."""
    azure.faults.full = {("Standard_DC2as_v5", "")}
    one = azure.make(FALLBACK_TYPES="Standard_D4s_v5,Standard_DC2es_v5,Standard_DC4as_v5")
    made = await one.create(launch())
    tried = [body["properties"]["hardwareProfile"]["vmSize"] for body in azure.puts()]
    assert tried == ["Standard_DC2as_v5", "Standard_DC4as_v5"]
    await one.delete(made.id)
    await one.close()


def test_settings_that_exclude_each_other_are_refused_at_start(tmp_path: Path) -> None:
    made = World(tmp_path, Azure(Role([])), _NoWire())  # type: ignore[arg-type]
    for settings in (
        {"AZURE_CVM_ENCRYPTION": "DiskWithVMGuestState"},
        {"TAGS": "azure-x=1"},
        {"AZURE_SUBNET_ID": "pods"},
        {"AZURE_AUTHORITY_HOST": "http://plain"},
    ):
        with pytest.raises(ConfigError):
            made.make(**settings)


class _NoWire:
    url = "https://127.0.0.1:9"


async def test_an_image_that_is_not_there_and_one_that_is_not_allowed(azure: World) -> None:
    one = azure.make(IMAGE_ALLOWLIST="/CommunityGalleries/*")
    gone = "/CommunityGalleries/cococommunity-42/images/nothing/versions/1.0.0"
    for image, words in ((gone, "is not there"), ("/x", "no image of this cloud"), (azure.azure.site.nsg, "no image")):
        with pytest.raises(InvalidRequest, match=words):
            await one.create(launch(image=image))
    with pytest.raises(InvalidRequest, match="IMAGE_ALLOWLIST"):
        await one.create(launch(image=azure.azure.site.image.replace("sealed", "plain")))
    made = await one.create(launch(image=gone.replace("/nothing/", "/podvm/")))
    await one.delete(made.id)
    await one.close()


async def test_volumes_are_checked_before_anything_is_paid_for(azure: World) -> None:
    estate = azure.azure.estate
    far, held = estate.make_disk("far", zone="3"), estate.make_disk("held")
    estate.parts[held.lower()]["properties"]["diskState"] = "Attached"
    one = azure.make(AZURE_ZONE="1")
    for volume, words in (
        (far, "FALLBACK_ZONES"),
        (held, "is Attached"),
        (held + "-no", "does not exist"),
        (held.replace(azure.azure.site.subscription, "another"), "AZURE_SUBSCRIPTION_ID"),
        ("x", "no"),
    ):
        with pytest.raises(ProviderError, match=words):
            await one.create(launch(volumes=(volume,)))
    assert azure.puts() == []
    await one.close()


async def test_volumes_are_attached_by_order_and_given_back(azure: World) -> None:
    disks = tuple(azure.azure.estate.make_disk(name) for name in ("b", "a"))
    held = [azure.azure.estate.parts[one.lower()] for one in disks]
    one = azure.make()
    made = await one.create(launch(volumes=disks))
    asked = azure.puts()[-1]["properties"]["storageProfile"]["dataDisks"]
    assert [(each["lun"], each["managedDisk"]["id"]) for each in asked] == list(enumerate(disks))
    assert {each["properties"]["diskState"] for each in held} == {"Attached"}
    await one.delete(made.id)
    assert {each["properties"]["diskState"] for each in held} == {"Unattached"}, "they outlive the pod"
    await one.close()


@pytest.mark.parametrize(("gallery", "key"), [("Community", "communityGallery"), ("Shared", "sharedGallery")])
async def test_images_of_other_peoples_galleries(azure: World, gallery: str, key: str) -> None:
    names = {"Community": "cococommunity-42", "Shared": "shared-42"}
    image = f"/{gallery}Galleries/{names[gallery]}/images/podvm/versions/1.0.0"
    body = await body_of(azure, AZURE_IMAGE_ID=image)
    assert body["properties"]["storageProfile"]["imageReference"] == {f"{key}ImageId": image}
    asked = {f"{gallery}GalleryImages.Get", f"{gallery}GalleryImageVersions.Get"}
    assert asked <= set(azure.wire.calls()), "its definition proves that it can be confidential"


async def test_a_gallery_of_another_subscription(azure: World) -> None:
    """Companies keep their images in one subscription, and run pods in many."""
    image = f"{azure.azure.site.abroad}/sealed/versions/1.0.0"
    body = await body_of(azure, AZURE_IMAGE_ID=image)
    assert body["properties"]["storageProfile"]["imageReference"] == {"id": image}
    one = azure.make(AZURE_IMAGE_ID=image)
    assert not [found for found in await one.check() if found.severity is not Severity.OK]
    await one.close()


async def test_a_version_has_to_be_there_and_here(azure: World) -> None:
    one, two = azure.make(AZURE_IMAGE_ID=azure.azure.site.image.replace("1.0.0", "9.0.0")), azure.make()
    with pytest.raises(InvalidRequest, match=r"/versions/9.0.0 is not there.*AZURE_IMAGE_ID"):
        await one.create(launch())
    azure.azure.site.kept_in = ["North Europe"]
    with pytest.raises(Misconfigured, match=r"kept in North Europe and not in westeurope \(AZURE_REGION\)"):
        await two.create(launch())
    assert azure.puts() == []
    await one.close()
    await two.close()


@pytest.mark.parametrize(("asked", "got"), [("0", None), ("10", 30), ("64", 64)])
async def test_the_root_disk_is_never_smaller_than_the_image(azure: World, asked: str, got: int | None) -> None:
    for image in (azure.azure.site.image, "/CommunityGalleries/cococommunity-42/images/podvm/versions/1.0.0"):
        body = await body_of(azure, ROOT_VOLUME_SIZE=asked, AZURE_IMAGE_ID=image)
        assert body["properties"]["storageProfile"]["osDisk"].get("diskSizeGB") == got


async def test_a_managed_image_is_for_ordinary_pod_vms(azure: World) -> None:
    image = f"{azure.azure.site.base}/Microsoft.Compute/images/old"
    body = await body_of(azure, DISABLECVM="true", AZURE_INSTANCE_SIZE="Standard_D2s_v5", AZURE_IMAGE_ID=image)
    assert body["properties"]["storageProfile"]["imageReference"] == {"id": image}
    assert "securityProfile" not in body["properties"], "generation 1 has neither secure boot nor a vTPM"
    one = azure.make(AZURE_IMAGE_ID=image)
    with pytest.raises(Misconfigured, match="gallery image of generation 2"):
        await one.create(launch())
    await one.close()


async def test_sizes_are_known_in_any_spelling(azure: World) -> None:
    """Azure takes them in any case; the operator's spelling is what pods and messages see."""
    one = azure.make(AZURE_INSTANCE_SIZE="standard_dc2as_v5", AZURE_INSTANCE_SIZES="STANDARD_DC4AS_V5")
    assert {found.name: found.vcpus for found in await one.instance_types()} == {
        "standard_dc2as_v5": 2,
        "STANDARD_DC4AS_V5": 4,
    }
    made = await one.create(launch())
    assert made.instance_type == "standard_dc2as_v5"
    await one.delete(made.id)
    await one.close()


async def test_restrictions_of_a_size_count_before_anything_is_paid_for(azure: World) -> None:
    """Of the zones the subscription may use the size in 2 and 3; of the regions not in this one."""
    ordinary = {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D16s_v5"}
    assert (await body_of(azure, **ordinary, AZURE_ZONE="1", FALLBACK_ZONES="3"))["zones"] == ["3"]
    one = azure.make(**ordinary, AZURE_ZONE="1")
    with pytest.raises(Misconfigured, match=r"cannot be had in the zones 1 .*AZURE_ZONE"):
        await one.create(launch())
    await one.close()
    sold = azure.make(DISABLECVM="true", AZURE_INSTANCE_SIZES="Standard_D8s_v5,Standard_D4s_v5")
    assert [found.name for found in await sold.instance_types()] == ["Standard_DC2as_v5", "Standard_D4s_v5"]
    await sold.close()


async def test_user_data_has_azures_limit(azure: World) -> None:
    one = azure.make()
    made = await one.create(launch(user_data=b"#" * (65536 // 4 * 3)))
    await one.delete(made.id)
    with pytest.raises(InvalidRequest, match="65536"):
        await one.create(launch(user_data=b"#" * (65536 // 4 * 3 + 1)))
    await one.close()


async def test_the_console_is_the_end_of_the_serial_log(azure: World) -> None:
    one = azure.make()
    made = await one.create(launch())
    assert b"Linux version" in await one.console(made.id)
    fetched = [noted.request for noted in azure.wire.journal if "serial" in noted.request.path]
    assert "authorization" not in fetched[0].headers, "the URL is signed; our token is not for the storage"
    await one.delete(made.id)
    assert await one.console(made.id) == b""
    await one.close()


async def test_create_does_not_wait_until_the_guest_reports_ready(azure: World) -> None:
    """user-pains.md 9: Azure's own wait ends when the guest agent has reported."""
    azure.azure.delays.made = 3600
    one = azure.make()
    made = await asyncio.wait_for(one.create(launch()), 20)
    await one.delete(made.id)
    await one.close()
