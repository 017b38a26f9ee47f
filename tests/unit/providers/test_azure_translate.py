"""Launch requests into Azure's requests, and the rights that they need: data alone."""

import base64
import re
from typing import Any

import pytest

import providers.azure
from caa.config.load import Settings, load
from caa.config.node import NODE_ROWS
from caa.errors import ConfigError, InvalidRequest, Misconfigured
from caa.model.ids import SandboxId
from caa.model.instance import Arch, LaunchRequest, Owner, Tee
from caa.provider.capacity import Place
from providers.azure import rights, translate
from providers.azure import settings as rows
from providers.azure.around import Waits, access
from providers.azure.shapes import Image

GROUP = "/subscriptions/s-1/resourceGroups/pods/providers"
NSG = f"{GROUP}/Microsoft.Network/networkSecurityGroups/pods"
SUBNET = f"{GROUP}/Microsoft.Network/virtualNetworks/net/subnets/pods"
SEALED = Image(
    id=f"{GROUP}/Microsoft.Compute/galleries/g/images/i/versions/1.0.0",
    generation="V2",
    security="confidentialvmsupported",
)
PLAIN = Image(id=f"{GROUP}/Microsoft.Compute/images/i")


def settings(**other: str) -> Settings:
    given = {"AZURE_SUBSCRIPTION_ID": "s-1", "AZURE_RESOURCE_GROUP": "pods", "AZURE_SUBNET_ID": SUBNET, **other}
    return load((*NODE_ROWS, *providers.azure.SETTINGS), given)


def plan(image: Image = PLAIN, tee: Tee = Tee.NONE, nics: int = 1, **other: str) -> translate.Plan:
    request = LaunchRequest(
        name="podvm-web-1",
        sandbox=SandboxId("s"),
        owner=Owner(cluster="c", node="n"),
        token="t",
        user_data=b"#cloud-config\n\xff",
        volumes=(f"{GROUP}/Microsoft.Compute/disks/d",),
    )
    return translate.Plan(
        request=request, image=image, public_key="ssh-ed25519 AAAA", tee=tee, nics=nics, settings=settings(**other)
    )


def made(place: Place | None = None, **other: Any) -> dict[str, Any]:
    found: dict[str, Any] = translate.virtual_machine(plan(**other), place or Place(instance_type="Standard_D2s_v5"))
    return found


class TestMachine:
    def test_user_data_is_any_bytes(self) -> None:
        assert base64.b64decode(made()["properties"]["userData"]) == b"#cloud-config\n\xff"

    def test_what_is_not_set_is_not_asked_for(self) -> None:
        body = made()
        assert not {"zones", "identity"} & body.keys()
        assert not {"priority", "evictionPolicy", "billingProfile", "securityProfile"} & body["properties"].keys()
        assert "diskSizeGB" not in body["properties"]["storageProfile"]["osDisk"]
        [nic] = body["properties"]["networkProfile"]["networkInterfaceConfigurations"]
        assert "networkSecurityGroup" not in nic["properties"]

    def test_everything_that_is_made_goes_with_the_vm_and_volumes_stay(self) -> None:
        body = made(nics=2, USE_PUBLIC_IP="1")["properties"]
        assert body["storageProfile"]["osDisk"]["deleteOption"] == "Delete"
        assert [one["deleteOption"] for one in body["storageProfile"]["dataDisks"]] == ["Detach"]
        for number, nic in enumerate(body["networkProfile"]["networkInterfaceConfigurations"]):
            inner = nic["properties"]
            assert (inner["primary"], inner["deleteOption"]) == (number == 0, "Delete")
            public = inner["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]
            assert public["properties"]["deleteOption"] == "Delete"

    def test_spot_is_evicted_for_good_and_costs_no_more_than_on_demand(self) -> None:
        body = made(Place(instance_type="Standard_D2s_v5", zone="2", spot=True))
        assert body["zones"] == ["2"]
        inner = body["properties"]
        assert (inner["priority"], inner["evictionPolicy"]) == ("Spot", "Delete")
        assert inner["billingProfile"] == {"maxPrice": -1}

    @pytest.mark.parametrize(("confidential", "where"), [(True, "securityProfile"), (False, "diskEncryptionSet")])
    def test_own_keys_are_where_azure_wants_them(self, confidential: bool, where: str) -> None:
        keys = f"{GROUP}/Microsoft.Compute/diskEncryptionSets/k"
        kind = {"image": SEALED, "tee": Tee.SNP, "AZURE_CVM_ENCRYPTION": "DiskWithVMGuestState"} if confidential else {}
        disk = made(**kind, AZURE_DISK_ENCRYPTION_SET=keys)["properties"]["storageProfile"]["osDisk"]["managedDisk"]
        assert ("securityProfile" in disk, "diskEncryptionSet" in disk) == (confidential, not confidential)
        inner = disk[where]
        assert (inner["diskEncryptionSet"] if confidential else inner) == {"id": keys}

    def test_trusted_launch_that_an_image_cannot(self) -> None:
        with pytest.raises(Misconfigured, match=r"generation 1.*AZURE_IMAGE_ID"):
            made(AZURE_TRUSTED_LAUNCH="on")

    def test_encryption_at_host_needs_no_security_type(self) -> None:
        assert made(AZURE_ENCRYPTION_AT_HOST="1")["properties"]["securityProfile"] == {"encryptionAtHost": True}


class TestRefusals:
    def test_every_missing_setting_is_named(self) -> None:
        with pytest.raises(Misconfigured, match="AZURE_REGION, AZURE_IMAGE_ID: not set"):
            translate.refuse_missing(settings())

    @pytest.mark.parametrize(
        ("image", "tee", "arch", "words"),
        [
            (SEALED, Tee.SNP, Arch.ARM64, "is for amd64, the size for arm64"),
            (PLAIN, Tee.SNP, Arch.AMD64, "cannot be a confidential VM"),
            (
                Image(id="x", generation="V2", security="trustedlaunchsupported"),
                Tee.TDX,
                Arch.AMD64,
                "cannot be a conf",
            ),
            (Image(id="x", generation="V1", security="confidentialvmsupported"), Tee.TDX, Arch.AMD64, "generation 2"),
        ],
    )
    def test_images_that_do_not_fit(self, image: Image, tee: Tee, arch: Arch, words: str) -> None:
        with pytest.raises(Misconfigured, match=words):
            translate.refuse_unfit(image, arch, tee=tee)

    @pytest.mark.parametrize("volume", ["", "data", f"{GROUP}/Microsoft.Compute/disks/", f"{GROUP}/../disks/a b"])
    def test_what_is_no_disk(self, volume: str) -> None:
        with pytest.raises(InvalidRequest, match="not the id of an Azure disk"):
            translate.disks([volume], "s-1")

    def test_disks_decide_the_zone(self) -> None:
        here, there, anywhere = (Place(instance_type="t", zone=zone) for zone in ("1", "2", ""))
        assert translate.places_of_disks([here, there], {"a": "2", "b": ""}) == [there]
        assert translate.places_of_disks([anywhere], {"a": ""}) == [anywhere]
        for zones in ({"a": "1", "b": "2"}, {"a": "3"}):
            with pytest.raises(Misconfigured, match="FALLBACK_ZONES"):
                translate.places_of_disks([here, there], zones)


class TestImages:
    @pytest.mark.parametrize(
        ("image", "kind", "names", "version"),
        [
            (f"{GROUP}/Microsoft.Compute/images/i", "image", ("pods", "i"), ""),
            (f"{GROUP}/Microsoft.Compute/galleries/g/images/i", "gallery_image", ("pods", "g", "i"), ""),
            (SEALED.id, "gallery_image", ("pods", "g", "i"), "1.0.0"),
            ("/CommunityGalleries/g/images/i", "community_gallery_image", ("here", "g", "i"), ""),
            ("/communitygalleries/g/images/i/versions/2.0", "community_gallery_image", ("here", "g", "i"), "2.0"),
            ("/SharedGalleries/g/images/i/versions/2.0", "shared_gallery_image", ("here", "g", "i"), "2.0"),
        ],
    )
    def test_whom_to_ask(self, image: str, kind: str, names: tuple[str, ...], version: str) -> None:
        assert re.fullmatch(rows.IMAGE_PATTERN, image)
        found = translate.image_name(image, "here")
        assert (found.kind, found.names, found.version) == (kind, names, version)
        assert found.subscription == ("s-1" if kind == "gallery_image" else "")

    @pytest.mark.parametrize("part", ["..", ".", "a?b", "a#b", "a%2Fb", "a b", "a;b", "", "a\n"])
    @pytest.mark.parametrize("place", range(3))
    def test_no_part_of_an_id_leads_elsewhere(self, part: str, place: int) -> None:
        names = ["podgroup", "gallery", "image"]
        names[place] = part
        group, gallery, image = names
        text = f"/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Compute/galleries/{gallery}/images/{image}"
        assert re.fullmatch(rows.IMAGE_PATTERN, text) is None
        assert re.fullmatch(rows.DISK_PATTERN, f"{GROUP}/Microsoft.Compute/disks/{part}") is None


class TestRights:
    def test_each_scope_has_its_own(self) -> None:
        needed = rights.needed(settings(AZURE_NSG_ID=NSG, AZURE_IMAGE_ID=SEALED.id))
        assert set(needed) == {GROUP.removesuffix("/providers"), SUBNET, NSG, SEALED.id.removesuffix("/versions/1.0.0")}
        assert rights.path(SUBNET) == f"{SUBNET}/providers/Microsoft.Authorization/permissions"

    def test_public_addresses_are_made_only_where_they_are_used(self) -> None:
        action = "Microsoft.Network/publicIPAddresses/write"
        assert action not in str(rights.needed(settings()))
        assert action in str(rights.needed(settings(USE_PUBLIC_IP="1")))

    @pytest.mark.parametrize(
        ("given", "gives"),
        [
            ([{"actions": ["*"]}], True),
            ([{"actions": ["microsoft.compute/*"], "notActions": []}], True),
            ([{"actions": ["*/write"]}], True),
            ([{"actions": ["Microsoft.Compute/virtualMachines/write"]}], True),
            ([{"actions": ["*"], "notActions": ["Microsoft.Compute/virtualMachines/*"]}], False),
            ([{"actions": ["*"], "notActions": ["*/write"]}, {"actions": ["Microsoft.Compute/*"]}], True),
            ([{"actions": ["*/read"]}, {"actions": ["Microsoft.Compute/virtualMachines"]}], False),
            ([{"actions": None}, {}], False),
            ([{"actions": ["Microsoft.Compute/virtualMachines.write"]}], False),
            ([], False),
        ],
    )
    def test_what_permissions_give(self, given: list[dict[str, Any]], gives: bool) -> None:
        action = "Microsoft.Compute/virtualMachines/write"
        assert rights.missing([action], given) == ([] if gives else [action])


class TestAccess:
    @pytest.mark.parametrize(
        ("cloud", "endpoint", "authority"),
        [
            ("AzureCloud", "https://management.azure.com", "https://login.microsoftonline.com"),
            ("AzureUSGovernment", "https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
            ("AzureChinaCloud", "https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        ],
    )
    def test_each_cloud_has_its_own(self, cloud: str, endpoint: str, authority: str) -> None:
        found = access(settings(AZURE_CLOUD=cloud), Waits())
        assert (found.endpoint, found.authority, found.scope) == (endpoint, authority, f"{endpoint}/.default")
        assert not found.own_authority

    def test_private_endpoints_keep_the_clouds_audience(self) -> None:
        own = {"AZURE_RESOURCE_MANAGER_ENDPOINT": "https://arm.corp/", "AZURE_AUTHORITY_HOST": "https://login.corp/"}
        found = access(settings(**own), Waits())
        assert (found.endpoint, found.authority) == ("https://arm.corp", "https://login.corp")
        assert found.scope == "https://management.azure.com/.default"
        assert found.own_authority, "Azure's list of its own authorities does not have it"

    def test_no_secret_is_in_its_text(self) -> None:
        found = access(settings(AZURE_CLIENT_SECRET="hunter2", AZURE_CLIENT_ID="app", AZURE_TENANT_ID="home"), Waits())
        assert not any(word in repr(found) for word in ("hunter2", "app", "home"))

    @pytest.mark.parametrize("image", ["/x", "/CommunityGalleries/g", "podvm", f"{GROUP}/Microsoft.Compute/disks/d"])
    def test_an_image_that_is_none_is_refused_at_the_start(self, image: str) -> None:
        with pytest.raises(ConfigError, match="AZURE_IMAGE_ID"):
            settings(AZURE_IMAGE_ID=image)

    def test_an_endpoint_without_tls_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="https"):
            settings(AZURE_RESOURCE_MANAGER_ENDPOINT="http://arm.corp")
