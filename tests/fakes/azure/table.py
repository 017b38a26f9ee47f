"""Azure's part in the table of faults."""

import itertools
import json

from caa.provider.capacity import Place
from tests.fakes.azure.world import World, world
from tests.fakes.fault_table import FaultTable, Places
from tests.fakes.load_table import LoadTable
from tests.fakes.wire import Noted

_MAKING = (
    "VirtualMachines.CreateOrUpdate", "VirtualMachines.Get", "NetworkInterfaces.Get", "PublicIPAddresses.Get",
    "ResourceSkus.List", "GalleryImages.Get", "GalleryImageVersions.Get", "Disks.Get", "Disks.Update", "Token",
)  # fmt: skip
_ENDING = (
    "VirtualMachines.Delete", "VirtualMachines.Get", "NetworkInterfaces.List", "PublicIPAddresses.List", "Disks.List",
)  # fmt: skip
_DISKS = itertools.count()


def _slow(azure: World, seconds: float) -> None:
    azure.azure.delays.power = seconds


def _places(_: World) -> Places:
    """The refusal comes from the long-running operation, after the VM was made half-way."""
    return Places(
        settings={"AZURE_ZONE": "1", "FALLBACK_ZONES": "2,3", "FALLBACK_TYPES": "Standard_DC4as_v5"},
        types=("Standard_DC2as_v5", "Standard_DC4as_v5"),
        zones=("1", "2", "3"),
        code="ZonalAllocationFailed",
        tried=_tried,
    )


def _tried(noted: Noted) -> Place:
    body = json.loads(noted.request.body)
    properties, [zone] = body["properties"], body.get("zones", [""])
    spot = properties.get("priority") == "Spot"
    return Place(instance_type=properties["hardwareProfile"]["vmSize"], zone=zone, spot=spot)


TABLE = FaultTable(
    cloud="azure",
    world=world,
    making=_MAKING,
    ending=_ENDING,
    staying=("Token", "GalleryImages.Get", "VirtualMachines.CreateOrUpdate", "VirtualMachines.Get", "Disks.Get"),
    make="VirtualMachines.CreateOrUpdate",
    kind="vm",
    everything={"USE_PUBLIC_IP": "1"},
    unread=frozenset({"VirtualMachines.CreateOrUpdate"}),  # of the answer to a PUT only the headers count
    proof=frozenset({"Token", "VirtualMachines.List"}),
    hurried={"read_timeout": 0.3},
    prepare=lambda _: None,
    volume=lambda azure: str(azure.azure.estate.make_disk(f"data{next(_DISKS)}")),
    slow=_slow,
    began=lambda azure: azure.azure.began,
    places=_places,
    missing=("AZURE_SUBSCRIPTION_ID", "AZURE_REGION", "AZURE_RESOURCE_GROUP", "AZURE_SUBNET_ID", "AZURE_IMAGE_ID"),
)


def _slowly(azure: World) -> None:
    azure.azure.delays.nic = azure.azure.delays.power = azure.azure.delays.ending = 0.1


LOAD = LoadTable(
    table=TABLE,
    speed=10.0,
    per_second=30.0,
    creates=50,
    allowed=390.0,
    looks=("VirtualMachines.List", "VirtualMachines.Get"),
    prepare=_slowly,
    asked=lambda azure: [str(body["properties"]["osProfile"]["computerName"]) for body in azure.puts()],
)
