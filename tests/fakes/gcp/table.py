"""Google Cloud's part in the table of faults."""

import itertools
import json

from caa.provider.capacity import Place
from tests.fakes.fault_table import FaultTable, Places
from tests.fakes.gcp.world import World, world
from tests.fakes.load_table import LoadTable
from tests.fakes.wire import Noted

_MAKING = (
    "instances.insert", "instances.aggregatedList", "zoneOperations.wait", "machineTypes.list", "images.get",
    "zones.get", "tagValues.getNamespaced", "disks.get",
)  # fmt: skip
_ENDING = ("instances.aggregatedList", "instances.delete", "disks.aggregatedList")
_DISKS = itertools.count()


def _slow(gcp: World, seconds: float) -> None:
    gcp.cloud.delays.making = seconds


def _places(_: World) -> Places:
    """c2d has SEV only: a pod VM that was to have SEV-SNP never becomes a weaker one."""
    return Places(
        settings={"FALLBACK_ZONES": "europe-west3-b", "FALLBACK_TYPES": "c2d-standard-2,n2d-standard-4"},
        types=("n2d-standard-2", "n2d-standard-4"),
        zones=("europe-west3-a", "europe-west3-b"),
        code="ZONE_RESOURCE_POOL_EXHAUSTED",
        tried=_tried,
    )


def _tried(noted: Noted) -> Place:
    body = json.loads(noted.request.body)
    _, zone, _, kind = body["machineType"].split("/")
    spot = body.get("scheduling", {}).get("provisioningModel") == "SPOT"
    return Place(instance_type=kind, zone=zone, spot=spot)


TABLE = FaultTable(
    cloud="gcp",
    world=world,
    making=_MAKING,
    ending=_ENDING,
    staying=("images.get", "instances.insert", "zoneOperations.wait"),
    make="instances.insert",
    everything={"USE_PUBLIC_IP": "1", "TAGS": "team=blue"},
    proof=frozenset({"projects.testIamPermissions"}),
    hurried={"read_timeout": 0.3, "long_poll": 0.3, "looks": 5, "undo": 200, "running": 40, "address": 20},
    prepare=lambda _: None,
    volume=lambda gcp: str(gcp.cloud.make_disk("europe-west3-a", f"data{next(_DISKS)}")),
    slow=_slow,
    began=lambda gcp: gcp.cloud.began,
    places=_places,
    missing=("GCP_PROJECT_ID", "GCP_ZONE", "GCP_NETWORK", "PODVM_IMAGE_NAME"),
)


def _in_pages(gcp: World) -> None:
    gcp.cloud.page = 60


LOAD = LoadTable(
    table=TABLE,
    speed=50.0,
    per_second=2.0,
    creates=20,
    allowed=150.0,
    looks=("instances.aggregatedList",),
    most_looks=2.0,  # one before the insert, one after it, shared
    waits={"long_poll": 20.0, "running": 3000, "address": 3000, "gone": 9000, "undo": 3000},
    prepare=_in_pages,
    asked=lambda gcp: [str(body["name"]) for body in gcp.cloud.inserts],
)
