"""What `azure` asks of Azure, as golden bodies; the defects of the reference's driver, one test each; many at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import ConfigError, CredentialsError, InstanceTypeError, InvalidRequest, Misconfigured, ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import InstanceState, Severity, Sizing
from caa.provider.choose import choose
from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.world import OWNER, World, launch, plain, world
from tests.fakes.faults import Fault
from tests.fakes.golden import assert_golden

PUT = "VirtualMachines.CreateOrUpdate"


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def loaded(azure: World) -> dict[str, str]:
    """Every setting that changes the body."""
    base = azure.azure.site.base
    return {
        "USE_PUBLIC_IP": "true",
        "EXTERNAL_NETWORK_VIA_PODVM": "true",
        "AZURE_ZONE": "2",
        "ROOT_VOLUME_SIZE": "64",
        "TAGS": "team=red,cost=42",
        "ENABLE_SECURE_BOOT": "true",
        "AZURE_CVM_ENCRYPTION": "DiskWithVMGuestState",
        "AZURE_DISK_ENCRYPTION_SET": f"{base}/Microsoft.Compute/diskEncryptionSets/keys",
        "AZURE_VM_IDENTITIES": f"{base}/Microsoft.ManagedIdentity/userAssignedIdentities/pod",
        "AZURE_IMAGE_ID": "/CommunityGalleries/cococommunity-42/images/podvm/versions/1.0.0",
        "PURCHASE_OPTIONS": "spot",
        "SSH_USERNAME": "core",
    }


def bodies(azure: World) -> list[bytes]:
    return [noted.request.body for noted in azure.wire.journal if noted.call == PUT]


async def body_of(azure: World, volumes: tuple[str, ...] = (), **settings: str) -> dict[str, object]:
    """The body of the PUT of one launch, which is undone again."""
    one = azure.make(**settings)
    made = await one.create(launch(volumes=volumes))
    await one.delete(made.id)
    await one.close()
    found: dict[str, object] = json.loads(bodies(azure)[-1])
    return found


@pytest.mark.parametrize("kind", ["plain", "confidential", "loaded"])
async def test_golden_bodies(azure: World, kind: str) -> None:
    """Remove the golden file, run, and review what comes."""
    plain_image = azure.azure.site.image.replace("/sealed/", "/plain/")
    settings = {
        "plain": {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D2s_v5", "AZURE_IMAGE_ID": plain_image},
        "confidential": {},
        "loaded": loaded(azure),
    }[kind]
    volumes = (azure.azure.estate.make_disk("data", zone="2"),) if kind == "loaded" else ()
    body = await body_of(azure, volumes, **settings)
    assert_golden(f"azure-{kind}.json", plain(json.dumps(body, indent=2, sort_keys=True), azure) + "\n")


@pytest.mark.parametrize("kind", ["VMGuestStateOnly", "DiskWithVMGuestState", "NonPersistedTPM"])
async def test_each_kind_of_confidential_encryption(azure: World, kind: str) -> None:
    body = json.dumps(await body_of(azure, AZURE_CVM_ENCRYPTION=kind, ENABLE_SECURE_BOOT="true"))
    assert f'"securityEncryptionType": "{kind}"' in body
    assert '"securityType": "ConfidentialVM"' in body


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
        assert resource.tags["caa-sandbox"] == "sandbox-0a1b2c3d", resource
        assert resource.tags["team"] == "red", resource
    assert kinds == {"vm", "disk", "nic", "address"}
    await one.delete(made.id)
    await one.close()


async def test_defect_a_failed_put_leaves_nothing(azure: World) -> None:
    """providers.md 5.2: a failed VM, its disk, interface and address remained; Azure holds the interface for 180 s."""
    azure.azure.half_made = 1
    azure.azure.delays.reserved = 0.3
    one = azure.make(USE_PUBLIC_IP="true")
    made = await one.create(launch())  # the second PUT of the same name
    assert azure.azure.ledger.made["nic"] == 2
    await one.delete(made.id)
    assert not azure.azure.ledger
    azure.azure.half_made = 99
    with pytest.raises(ProviderError, match="InternalExecutionError"):
        await one.create(launch())
    assert not azure.azure.ledger
    await one.close()


async def test_defect_what_a_crashed_node_left_is_listed_and_removed(azure: World) -> None:
    azure.azure.estate.half_make("podvm-web-0a1b2c3d", _asked(azure))
    one = azure.make()
    listed = await one.list_owned(OWNER)
    assert {str(found.id).split("/")[-2] for found in listed} == {"networkInterfaces", "publicIPAddresses"}
    for found in sorted(listed, key=lambda each: "public" in each.id):
        await one.delete(found.id)
    assert not azure.azure.ledger
    await one.close()


def _asked(azure: World) -> dict[str, object]:
    tags = {"caa-cluster": "c1", "caa-node": "n1", "caa-sandbox": "s1", "caa-name": "podvm-web-0a1b2c3d"}
    public = {"name": "ip", "tags": tags, "properties": {}}
    address = {"name": "config", "properties": {"publicIPAddressConfiguration": public}}
    nic = {"name": "net", "tags": tags, "properties": {"ipConfigurations": [address]}}
    return {"properties": {"networkProfile": {"networkInterfaceConfigurations": [nic]}}}


async def test_defect_no_key_is_made_for_each_pod(azure: World) -> None:
    """providers.md 5.2: an RSA-4096 pair per pod. Here one public key serves all; its private half is nowhere."""
    one = azure.make()
    for name in ("podvm-web-0a1b2c3d", "podvm-web-9f8e7d6c"):
        made = await one.create(launch(name))
        await one.delete(made.id)
    first, second = (json.loads(body)["properties"]["osProfile"]["linuxConfiguration"]["ssh"] for body in bodies(azure))
    assert first == second
    assert not list(azure.folder.glob("**/*rsa*"))
    await one.close()


async def test_defect_gpu_and_tee_are_in_the_catalogue(azure: World) -> None:
    gpu = "Standard_NC24ads_A100_v4"
    one = azure.make(DISABLECVM="true", AZURE_INSTANCE_SIZES=f"{gpu},Standard_DC2as_v5,Standard_D4s_v5")
    types = await one.instance_types()
    assert choose(Sizing(gpus=1), types, default="Standard_DC2as_v5") == gpu
    assert choose(Sizing(vcpus=4), types, default="Standard_DC2as_v5") == "Standard_D4s_v5"
    with pytest.raises(InstanceTypeError, match="not part of supported instance types list"):
        choose(Sizing(instance_type="Standard_E2s_v5"), types, default="Standard_DC2as_v5")
    with pytest.raises(InstanceTypeError, match="no instance type found for the given vcpus"):
        choose(Sizing(vcpus=512), types, default="Standard_DC2as_v5")
    await one.close()


async def test_defect_unknown_sizes_are_named(azure: World) -> None:
    """providers.md 5.2: sizes that a region lacks were dropped in silence."""
    one = azure.make(AZURE_INSTANCE_SIZES="Standard_DC4as_v5,Standard_DC96as_v9,Standard_D8s_v5,Standard_D2s_v5")
    told = [found.detail for found in await one.check() if found.severity is Severity.WARNING]
    assert any("Standard_DC96as_v9" in text for text in told)
    assert any("Standard_D8s_v5" in text for text in told), "the subscription may not use it"
    assert any("Standard_D2s_v5 has no TEE" in text for text in told)
    await one.close()


async def test_defect_the_zone_is_used(azure: World) -> None:
    assert (await body_of(azure, AZURE_ZONE="3"))["zones"] == ["3"]
    one = azure.make(AZURE_INSTANCE_SIZE="Standard_DC2es_v5", AZURE_ZONE="1", FALLBACK_ZONES="2")
    made = await one.create(launch())
    assert json.loads(bodies(azure)[-1])["zones"] == ["2"], "zone 1 does not have the size, and nobody paid to find out"
    await one.delete(made.id)
    await one.close()


async def test_defect_interfaces_are_found_by_their_own_group(azure: World) -> None:
    """The id's resource group counts, not the setting's, and names are compared without regard to case."""
    one = azure.make()
    made = await one.create(launch())
    shouted = InstanceId(str(made.id).replace("resourceGroups/pods", "RESOURCEGROUPS/PODS"))
    assert await one.state(shouted) is InstanceState.RUNNING
    await one.delete(shouted)
    assert not azure.azure.ledger
    await one.close()


async def test_defect_the_size_list_is_not_fetched_for_every_pod(azure: World) -> None:
    one = azure.make()
    for number in range(3):
        disk = azure.azure.estate.make_disk(f"data-{number}")
        made = await one.create(launch(f"podvm-web-0000000{number}", volumes=(disk,)))
        await one.delete(made.id)
    assert azure.wire.calls().count("ResourceSkus.List") == 1
    await one.close()


async def test_defect_public_addresses_come_first_and_private_ones_after(azure: World) -> None:
    one = azure.make(USE_PUBLIC_IP="true", EXTERNAL_NETWORK_VIA_PODVM="true")
    made = await one.create(launch())
    assert [str(address).split(".")[0] for address in made.addresses] == ["20", "20", "10", "10"]
    await one.delete(made.id)
    await one.close()


async def test_defect_gone_is_told_by_code_and_delete_is_forced(azure: World) -> None:
    """providers.md 5.2: the reference searches the error's text for "NotFound"."""
    one = azure.make()
    made = await one.create(launch())
    await one.delete(made.id)
    await one.delete(made.id)
    deletes = [noted.request.query for noted in azure.wire.journal if noted.call == "VirtualMachines.Delete"]
    assert [query["forceDeletion"].lower() for query in deletes] == ["true", "true"]
    assert await one.state(made.id) is InstanceState.ABSENT
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
    assert bodies(azure) == []


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
        ("x", "no"),
    ):
        with pytest.raises(ProviderError, match=words):
            await one.create(launch(volumes=(volume,)))
    assert bodies(azure) == []
    await one.close()


async def test_user_data_has_azures_limit(azure: World) -> None:
    one = azure.make()
    made = await one.create(launch(user_data=b"#" * (65536 // 4 * 3)))
    await one.delete(made.id)
    with pytest.raises(InvalidRequest, match="65536"):
        await one.create(launch(user_data=b"#" * (65536 // 4 * 3 + 1)))
    await one.close()


async def test_an_operation_is_resumed_after_a_restart(azure: World) -> None:
    """The second node finds the saved continuation, sends no second DELETE, and waits for the first one's end."""
    first = azure.make()
    made = await first.create(launch())
    azure.azure.delays.ending = 0.5
    going = asyncio.ensure_future(first.delete(made.id))
    await asyncio.to_thread(azure.azure.ending.wait)
    await asyncio.sleep(0.1)
    going.cancel()
    again = azure.make()
    await again.delete(made.id)
    assert not azure.azure.ledger
    assert azure.wire.calls().count("VirtualMachines.Delete") == 1
    assert not list(azure.folder.glob("catalogue/azure-operations/*"))
    await asyncio.gather(first.close(), again.close())


async def test_create_does_not_wait_until_the_guest_reports_ready(azure: World) -> None:
    """user-pains.md 9: Azure's own wait ends when the guest agent has reported."""
    azure.azure.delays.made = 3600
    one = azure.make()
    made = await asyncio.wait_for(one.create(launch()), 20)
    await one.delete(made.id)
    await one.close()


async def test_the_role_of_the_page_is_enough_and_not_too_much(azure: World) -> None:
    """What the page lists is what lives of pods use, a broken PUT among them; what it does not list is denied."""
    azure.azure.half_made = 1
    for settings in (loaded(azure), {}, {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D2s_v5"}):
        one = azure.make(**settings)
        made = await one.create(launch())
        assert await one.console(made.id)
        assert await one.state(made.id) is InstanceState.RUNNING
        assert not [found for found in await one.check() if found.severity is Severity.ERROR]
        await one.delete(made.id)
        await one.close()
    # The other kinds of images are another test's.
    assert {one for one in azure.azure.role.listed - azure.azure.role.used if "/images/read" not in one} == set()


async def test_a_right_that_is_missing_is_named(azure: World) -> None:
    action = "Microsoft.Network/virtualNetworks/subnets/join/action"
    azure.azure.role = Role([one for one in azure.azure.role.listed if one != action])
    one = azure.make()
    with pytest.raises(CredentialsError, match=rf"{action}.*docs/providers/azure\.md"):
        await one.create(launch())
    await one.close()


async def test_check_names_a_shut_group_a_small_subnet_and_the_quota(azure: World) -> None:
    shut = {"direction": "Inbound", "protocol": "Tcp", "destinationPortRange": "15000-16000", "access": "Deny"}
    azure.azure.rules = [{"properties": {**shut, "priority": 100, "sourceAddressPrefix": "*"}}]
    azure.azure.subnet_range, azure.azure.quota = "10.0.0.0/28", 3
    one = azure.make()
    told = {found.subject: found for found in await one.check() if found.severity is not Severity.OK}
    assert "15150" in told["security group"].detail
    assert "11 free addresses" in told["subnet"].detail
    assert "3 vCPUs" in told["quota"].detail
    await one.close()


async def test_two_hundred_starts_and_stops_within_the_limit(azure: World) -> None:
    """No more calls a second than the setting says, nobody starves, nothing is left."""
    azure.azure.faults.calls_per_second = 330  # the cloud's own limit
    azure.azure.delays.nic = azure.azure.delays.power = azure.azure.delays.ending = 0.02
    one = azure.make(CLOUD_CALLS_PER_SECOND="6", CLOUD_CREATES_AT_ONCE="50")  # 300 a second of the world's clock
    begin = time.monotonic()

    async def life(number: int) -> None:
        made = await one.create(replace(launch(f"podvm-web-{number:08d}"), image=""))
        await one.delete(made.id)

    await asyncio.gather(*(life(number) for number in range(200)))
    took = time.monotonic() - begin
    assert azure.azure.ledger.made["vm"] == 200
    assert len(azure.wire.calls()) <= 6 * 50 * took + 6
    assert azure.wire.calls(fault=Fault.THROTTLED) == []
    await one.close()
