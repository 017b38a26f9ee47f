"""What Azure checks of a VM beyond its shape: size, zone, image, security, user data, network, keys, tags, disks."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure.model import Refused

_USER_DATA = 65536
_KEY = re.compile(r"(ssh-rsa|ssh-ed25519) [A-Za-z0-9+/=]{40,}( .*)?")


@dataclass(frozen=True)
class Size:
    """A line of the catalogue and its price per hour."""

    vcpus: int
    memory_gib: float
    tee: str = ""
    zones: tuple[str, ...] = ("1", "2", "3")
    arch: str = "x64"
    gpus: int = 0
    price: float = 0.1
    restricted: str = ""  # "location", or a zone's number


@dataclass
class Site:
    """What there is in the fake subscription before anything is made."""

    subscription: str = "11111111-2222-3333-4444-555555555555"
    other_subscription: str = "22222222-2222-3333-4444-555555555555"
    tenant: str = "99999999-8888-7777-6666-555555555555"
    group: str = "pods"
    region: str = "westeurope"
    sizes: dict[str, Size] = field(
        default_factory=lambda: {
            "Standard_DC2as_v5": Size(2, 8, "SNP", price=0.11),
            "Standard_DC4as_v5": Size(4, 16, "SNP", price=0.22),
            "Standard_DC2es_v5": Size(2, 8, "TDX", zones=("2",), price=0.12),
            "Standard_D2s_v5": Size(2, 8),
            "Standard_D4s_v5": Size(4, 16),
            "Standard_D2ps_v5": Size(2, 8, arch="Arm64"),
            "Standard_NC24ads_A100_v4": Size(24, 220, gpus=1, price=3.7, zones=("1",)),
            "Standard_D8s_v5": Size(8, 32, restricted="location"),
            "Standard_D16s_v5": Size(16, 64, restricted="1"),
        }
    )
    images: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: set[str] = field(default_factory=lambda: {"1.0.0"})
    kept_in: list[str] = field(default_factory=lambda: ["North Europe", "West Europe"])
    image_size: int = 30

    def __post_init__(self) -> None:
        gallery = f"{self.base}/Microsoft.Compute/galleries/podvm/images"
        sealed = [{"name": "SecurityType", "value": "TrustedLaunchAndConfidentialVmSupported"}]
        said = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V2"}
        self.images = {
            f"{gallery}/sealed": {**said, "architecture": "x64", "features": sealed},
            f"{self.abroad}/sealed": {**said, "architecture": "x64", "features": sealed},
            f"{gallery}/plain": {**said, "architecture": "x64"},
            f"{gallery}/arm": {**said, "architecture": "Arm64"},
            "/CommunityGalleries/cococommunity-42/images/podvm": {**said, "architecture": "x64", "features": sealed},
            "/SharedGalleries/shared-42/images/podvm": {**said, "architecture": "x64", "features": sealed},
            f"{self.base}/Microsoft.Compute/images/old": {"hyperVGeneration": "V1"},
        }

    @property
    def base(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers"

    @property
    def abroad(self) -> str:
        """The images of a gallery in another subscription."""
        group = f"/subscriptions/{self.other_subscription}/resourceGroups/img/providers"
        return f"{group}/Microsoft.Compute/galleries/g/images"

    @property
    def image(self) -> str:
        return f"{self.base}/Microsoft.Compute/galleries/podvm/images/sealed/versions/1.0.0"

    @property
    def subnet(self) -> str:
        return f"{self.base}/Microsoft.Network/virtualNetworks/net/subnets/pods"

    @property
    def nsg(self) -> str:
        return f"{self.base}/Microsoft.Network/networkSecurityGroups/pods"

    def size(self, name: str) -> tuple[str, Size]:
        """A line of the catalogue under its own name; case does not count. Raises `LookupError`."""
        key = {one.lower(): one for one in self.sizes}[name.lower()]
        return key, self.sizes[key]

    def find_image(self, name: str) -> Mapping[str, Any] | None:
        """The definition behind an image id or a version's."""
        wanted, _, version = name.lower().partition("/versions/")
        found = next((one for key, one in self.images.items() if key.lower() == wanted), None)
        return None if version and version not in self.versions else found

    def tell_image(self, name: str) -> dict[str, Any] | None:
        """What Azure tells of an image, or of a version, by its id."""
        found = self.find_image(name)
        if found is None or "/versions/" not in name.lower():
            return dict(found) if found is not None else None
        size = {"diskSizeGB" if name.startswith(("/Community", "/Shared")) else "sizeInGB": self.image_size}
        told: dict[str, Any] = {"storageProfile": {"osDiskImage": size}}
        if name.startswith("/subscriptions/"):
            told["publishingProfile"] = {"targetRegions": [{"name": one} for one in self.kept_in]}
        return told


def refuse_launch(site: Site, name: str, body: Mapping[str, Any]) -> None:
    """Raise `Refused` for a VM that Azure would refuse."""
    inner = body.get("properties") or {}
    if str(body.get("location")).lower() != site.region:
        raise Refused("LocationNotAvailableForResourceType", f"The location '{body.get('location')}' is not available.")
    size = _size(site, str((inner.get("hardwareProfile") or {}).get("vmSize")), body.get("zones") or ())
    image = _image(site, (inner.get("storageProfile") or {}).get("imageReference") or {})
    if str(image.get("architecture", "x64")).lower() != size.arch.lower():
        raise Refused("BadRequest", "Cannot create a VM: the CPU architecture of the size is not the image's.")
    asked = ((inner.get("storageProfile") or {}).get("osDisk") or {}).get("diskSizeGB")
    if asked and int(asked) < site.image_size:
        words = f"The specified disk size {asked} GB is smaller than the disk of the VM image: {site.image_size} GB."
        raise Refused("InvalidParameter", words)
    _refuse_security(inner, size, image)
    _refuse_user_data(str(inner.get("userData") or ""))
    _refuse_network(site, inner.get("networkProfile") or {})
    _refuse_os(name, inner.get("osProfile") or {})
    refuse_tags(body.get("tags") or {})
    if (inner.get("evictionPolicy") or inner.get("billingProfile")) and inner.get("priority") != "Spot":
        raise Refused("InvalidParameter", "evictionPolicy and billingProfile can be set for Spot VMs only.")


def _size(site: Site, name: str, zones: Sequence[str]) -> Size:
    try:
        _, size = site.size(name)
    except LookupError as error:
        raise Refused("InvalidParameter", f"The value {name} provided for the VM size is not valid.") from error
    if size.restricted == "location":
        raise Refused("SkuNotAvailable", f"The requested size {name} is not available in {site.region}.", status=409)
    if len(zones) > 1 or any(one not in size.zones or one == size.restricted for one in zones):
        raise Refused("SkuNotAvailable", f"The requested size {name} is not available in zone {zones}.", status=409)
    return size


def _image(site: Site, reference: Mapping[str, str]) -> Mapping[str, Any]:
    given = [key for key in ("id", "communityGalleryImageId", "sharedGalleryImageId") if reference.get(key)]
    if len(given) != 1:
        raise Refused("InvalidParameter", "imageReference has to have one of id and gallery image ids.")
    name = reference[given[0]]
    prefix = {"communityGalleryImageId": "/communitygalleries/", "sharedGalleryImageId": "/sharedgalleries/"}
    if not name.lower().startswith(prefix.get(given[0], "/subscriptions/")):
        raise Refused("InvalidParameter", f"imageReference.{given[0]} '{name}' is of another kind.")
    found = site.find_image(name)
    if found is None:
        raise Refused(
            "GalleryImageNotFound", f"The gallery image {name} is not available in {site.region}.", status=404
        )
    return found


def _refuse_security(inner: Mapping[str, Any], size: Size, image: Mapping[str, Any]) -> None:
    profile = inner.get("securityProfile") or {}
    uefi = profile.get("uefiSettings") or {}
    disk = ((inner.get("storageProfile") or {}).get("osDisk") or {}).get("managedDisk") or {}
    kind = (disk.get("securityProfile") or {}).get("securityEncryptionType")
    features = {one["name"]: one["value"] for one in image.get("features") or ()}
    wanted = str(profile.get("securityType") or "")
    if kind and wanted != "ConfidentialVM":
        raise Refused("InvalidParameter", "securityEncryptionType can be set only with securityType ConfidentialVM.")
    if uefi and not wanted:
        raise Refused("InvalidParameter", "uefiSettings need a securityType.")
    if wanted and image.get("hyperVGeneration") != "V2":
        raise Refused("BadRequest", f"Security type {wanted} needs an image of generation 2.")
    if wanted and wanted.replace("VM", "Vm") not in features.get("SecurityType", ""):
        raise Refused("BadRequest", f"The image does not support the security type {wanted}.")
    if wanted == "ConfidentialVM":
        _refuse_confidential(uefi, str(kind or ""), size=size, host=bool(profile.get("encryptionAtHost")))


def _refuse_confidential(uefi: Mapping[str, Any], kind: str, *, size: Size, host: bool) -> None:
    if not size.tee:
        raise Refused("BadRequest", "The VM size is not supported for creation of VMs with 'ConfidentialVM'.")
    if not kind:
        raise Refused("InvalidParameter", "securityEncryptionType is required for securityType ConfidentialVM.")
    if not uefi.get("vTpmEnabled"):
        raise Refused("InvalidParameter", "vTpmEnabled has to be true for securityType ConfidentialVM.")
    if kind == "DiskWithVMGuestState" and (host or not uefi.get("secureBootEnabled")):
        raise Refused("InvalidParameter", "DiskWithVMGuestState needs secureBootEnabled, and no encryptionAtHost.")


def _refuse_user_data(text: str) -> None:
    if len(text) > _USER_DATA:
        raise Refused("InvalidParameter", f"userData has {len(text)} characters, the limit is {_USER_DATA}.")
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused("InvalidParameter", "userData has to be base64.") from error


def _refuse_network(site: Site, network: Mapping[str, Any]) -> None:
    nics = network.get("networkInterfaceConfigurations") or ()
    if not nics:
        raise Refused("InvalidParameter", "Required parameter 'networkProfile' is missing (null).")
    if not network.get("networkApiVersion"):
        raise Refused("InvalidParameter", "networkApiVersion is required with networkInterfaceConfigurations.")
    if [bool((one.get("properties") or {}).get("primary")) for one in nics].count(True) != 1:
        raise Refused("InvalidParameter", "Exactly one network interface has to be primary.")
    for one in nics:
        inner = one.get("properties") or {}
        refuse_tags(one.get("tags") or {})
        group = inner.get("networkSecurityGroup")
        if group and group["id"].lower() != site.nsg.lower():
            raise Refused(
                "InvalidResourceReference", f"Resource {group['id']} referenced by {one['name']} was not found."
            )
        for address in inner.get("ipConfigurations") or ():
            subnet = str(((address.get("properties") or {}).get("subnet") or {}).get("id"))
            if subnet.lower() != site.subnet.lower():
                raise Refused(
                    "InvalidResourceReference", f"Resource {subnet} referenced by {one['name']} was not found."
                )


def _refuse_os(name: str, os_profile: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", str(os_profile.get("computerName") or name)):
        raise Refused("InvalidParameter", "Linux host name is not valid.")
    linux = os_profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or ()
    if not linux.get("disablePasswordAuthentication") or not keys:
        raise Refused(
            "InvalidParameter", "Authentication using either SSH or by user name and password must be enabled."
        )
    user = os_profile.get("adminUsername")
    for one in keys:
        if not _KEY.fullmatch(str(one.get("keyData"))):
            raise Refused(
                "InvalidParameter", "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid."
            )
        if one.get("path") != f"/home/{user}/.ssh/authorized_keys":
            raise Refused("InvalidParameter", "Destination path for SSH public keys has to be in the user's home.")


def refuse_tags(tags: Mapping[str, str]) -> None:
    """Raise `Refused` for tags that Azure does not take."""
    for key, value in tags.items():
        if len(key) > 512 or len(value) > 256 or re.search(r"[<>%&\\?/]", key):
            raise Refused("InvalidTagNameCharacters", f"The tag '{key[:40]}' is not valid.")
    if len(tags) > 50:
        raise Refused("TagsLimitExceeded", "A resource has at most 50 tags.")
