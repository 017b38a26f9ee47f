"""Which permissions a launch needs, on what, and asking Google which of them we have. It has no dry run."""

from collections.abc import Mapping, Sequence

from caa.config.load import Settings
from caa.errors import Gone, Misconfigured
from caa.model.instance import Severity
from caa.provider.contract import Finding
from caa.provider.rows import TAGS, USE_PUBLIC_IP
from providers.gcp import settings as rows
from providers.gcp.client import Gce
from providers.gcp.surroundings import Surroundings

SUBJECT = "permissions"
_PAGE = "give the node's service account the role that docs/providers/gcp.md lists"
_ALWAYS = (
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.get",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.disks.use",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.machineTypes.list",
    "compute.zoneOperations.get",
    "compute.zones.get",
)
_SUBNETWORK = ("compute.subnetworks.use",)
_IMAGE = ("compute.images.get", "compute.images.useReadOnly")
_TAG = ("resourcemanager.tagValueBindings.create", "resourcemanager.tagValues.get")
_ACT_AS = "iam.serviceAccounts.actAs"


def of_project(values: Settings, custom: bool) -> tuple[str, ...]:
    """What a launch and its end need in GCP_PROJECT_ID; `custom`: there are machine types that are in no list."""
    tags = ("compute.instances.createTagBinding", "compute.disks.createTagBinding")
    further: tuple[tuple[bool, tuple[str, ...]], ...] = (
        (custom, ("compute.machineTypes.get",)),
        (bool(values[rows.NETWORK_TAGS]), ("compute.instances.setTags",)),
        (bool(values[TAGS]), tags),
        (bool(values[rows.ACCELERATORS]), ("compute.acceleratorTypes.get",)),
        (bool(values[rows.SERVICE_ACCOUNT]), ("compute.instances.setServiceAccount",)),
        ("/images/family/" in values[rows.IMAGE], ("compute.images.getFromFamily",)),
    )
    return (*_ALWAYS, *(one for needed, names in further if needed for one in names))


async def project(gce: Gce, around: Surroundings, *, values: Settings) -> list[Finding]:
    """What we may do in our project."""
    ours = values[rows.PROJECT]
    wanted = of_project(values, any("-custom-" in one for one in around.wanted_types()))
    granted = await _of_manager(gce, f"projects/{ours}", wanted=wanted)
    return [_finding(f"the project {ours}", wanted, granted=granted)]


async def subnetwork(gce: Gce, path: str, *, values: Settings) -> Finding:
    """What we may do with a subnetwork, granted on it or above it."""
    _, owner, _, region, _, name = path.split("/")
    wanted = (*_SUBNETWORK, "compute.subnetworks.useExternalIp") if values[USE_PUBLIC_IP] else _SUBNETWORK
    reply = await gce.call(
        "Subnetworks",
        "test_iam_permissions",
        project=owner,
        region=region,
        resource=name,
        test_permissions_request_resource={"permissions": list(wanted)},
    )
    return _finding(path, wanted, granted=_granted(reply), remedy=f"{_PAGE}, or roles/compute.networkUser on it")


async def image(gce: Gce, path: str) -> Finding:
    """What we may do with the image, granted on it or above it."""
    _, owner, _, _, name = path.split("/")
    body = {"permissions": list(_IMAGE)}
    reply = await gce.call(
        "Images", "test_iam_permissions", project=owner, resource=name, test_permissions_request_resource=body
    )
    return _finding(path, _IMAGE, granted=_granted(reply), remedy=f"{_PAGE}, or roles/compute.imageUser on it")


async def tags(gce: Gce, around: Surroundings) -> list[Finding]:
    """What we may do with the resource-manager tags of TAGS."""
    remedy, found = f"{_PAGE}, or roles/resourcemanager.tagUser on it", (await around.tags()).values()
    granted = {one: await _of_manager(gce, one, wanted=_TAG) for one in found}
    return [_finding(one, _TAG, granted=rights, remedy=remedy) for one, rights in granted.items()]


async def service_account(gce: Gce, values: Settings) -> list[Finding]:
    """Whether pod VMs may be given their account. A grant on the account itself is not seen from the project."""
    account = values[rows.SERVICE_ACCOUNT]
    if not account:
        return []
    where = f"projects/{values[rows.PROJECT]}"
    if await _of_manager(gce, where, wanted=(_ACT_AS,)):
        return [Finding(severity=Severity.OK, subject=SUBJECT, detail=f"{_ACT_AS} is there, in the whole project")]
    told = f"{_ACT_AS} is not granted in {where}; it may be on {account}, which cannot be seen from here"
    remedy = f"give the node's service account roles/iam.serviceAccountUser on {account}"
    return [Finding(severity=Severity.WARNING, subject=SUBJECT, detail=told, remedy=remedy)]


async def _of_manager(gce: Gce, resource: str, *, wanted: Sequence[str]) -> set[str]:
    body = {"permissions": list(wanted)}
    try:
        return _granted(await gce.resource_manager(f"{resource}:testIamPermissions", body=body))
    except Gone as error:
        raise Misconfigured(f"{error}; see GCP_PROJECT_ID and GCP_NETWORK") from error


def _granted(reply: Mapping[str, object]) -> set[str]:
    found = reply.get("permissions")
    return set(map(str, found)) if isinstance(found, list) else set()


def _finding(where: str, wanted: Sequence[str], *, granted: set[str], remedy: str = _PAGE) -> Finding:
    if missing := sorted(set(wanted) - granted):
        told = f"the node's service account lacks {', '.join(missing)} in {where}"
        return Finding(severity=Severity.ERROR, subject=SUBJECT, detail=told, remedy=remedy)
    return Finding(severity=Severity.OK, subject=SUBJECT, detail=f"all {len(wanted)} are there in {where}")
