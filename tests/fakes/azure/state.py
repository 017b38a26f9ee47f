"""What is alive in the fake subscription, how it becomes what was asked for, and how it goes."""

import base64
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from tests.fakes.azure.model import Refused
from tests.fakes.azure.rules import Site
from tests.fakes.ledger import Ledger, Resource
from tests.fakes.machines import Guest, Host, Nowhere, Order

Body = dict[str, Any]


@dataclass
class Delays:
    """Seconds from the PUT to each stage, from the DELETE to the end, and how long a lost VM's interface is kept."""

    nic: float = 0.0
    address: float = 0.0
    power: float = 0.0
    made: float = 0.0
    ending: float = 0.0
    reserved: float = 0.0


@dataclass
class Vm:
    """One VM. `body` is what was asked for; `failed` is the (code, words) that its PUT ends with; a `mute` one's
    instance view does not tell them. Of an `unheard` one, which runs, no guest agent has reported in time."""

    name: str
    body: Body
    operation: str
    born: float = field(default_factory=time.monotonic)
    created: str = "2026-11-24T10:00:00.000000+00:00"
    failed: tuple[str, str] = ("", "")
    mute: bool = False
    unheard: bool = False
    halted: str = ""
    ends: float = 0.0
    parts: list[str] = field(default_factory=list)

    @property
    def age(self) -> float:
        return time.monotonic() - self.born


class Estate:
    """VMs by name, their parts by id (all in lower case), and operations by id."""

    def __init__(self, site: Site, ledger: Ledger, delays: Delays) -> None:
        self._site, self._ledger, self.delays = site, ledger, delays
        self.vms: dict[str, Vm] = {}
        self.parts: dict[str, Body] = {}
        self.born: dict[str, float] = {}
        self.held: dict[str, float] = {}
        self.operations: dict[str, tuple[float, str, str]] = {}  # when it ends, code and words of a failure
        self.host: Host = Nowhere()
        self._numbers = itertools.count(1)

    def operation(self, seconds: float, failed: tuple[str, str] = ("", "")) -> str:
        """A new operation that ends so many seconds from now."""
        name = f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        self.operations[name] = (time.monotonic() + seconds, *failed)
        return name

    def advance(self) -> None:
        """Let happen what was due."""
        now = time.monotonic()
        for vm in list(self.vms.values()):
            if vm.age >= self.delays.nic and not vm.parts and not vm.ends:
                self._make_parts(vm)
            if vm.ends and now >= vm.ends:
                self._end(vm)

    def put(self, name: str, body: Body, failed: tuple[str, str]) -> Vm:
        """A new VM, being made. Raises `Refused` when another one left a disk of that name."""
        disk = self.id_of("Compute", "disks", body["properties"]["storageProfile"]["osDisk"]["name"])
        if disk.lower() in self.parts:
            words = f"Disk {disk} already exists. Only CreateOption.Attach is supported."
            raise Refused("ConflictingUserInput", words, status=409)
        operation = self.operation(self.delays.power if failed[0] else self.delays.made, failed)
        vm = self.vms[name.lower()] = Vm(name, body, operation, failed=failed)
        _, size = self._site.size(body["properties"]["hardwareProfile"]["vmSize"])
        self._ledger.add(Resource(kind="vm", id=name, cost=size.price, tags=body.get("tags") or {}))
        self._hold_disks(body, self.id_of("Compute", "virtualMachines", name))
        self.advance()
        return vm

    def hurry(self, vm: Vm) -> None:
        """Whatever is under way ends now, the deletion of this VM too."""
        now = time.monotonic()
        self.operations = {name: (now, code, words) for name, (_, code, words) in self.operations.items()}
        vm.ends = min(vm.ends, now)

    def half_make(self, name: str, body: Body) -> None:
        """What a PUT leaves that breaks off half-way: its root disk, which has no tags, and its interfaces and
        addresses, which Azure keeps for a VM that never comes."""
        vm = Vm(name, body, "")
        disk = (body["properties"].get("storageProfile") or {}).get("osDisk") or {"name": f"{name}-disk"}
        self._part("Compute", "disks", disk["name"], {"diskState": "Unattached"})
        self._make_nics(vm)
        for one in vm.parts:
            self.held[one] = time.monotonic() + self.delays.reserved

    def delete(self, vm: Vm) -> str:
        """Begin to delete; the operation's id."""
        vm.ends = vm.ends or time.monotonic() + self.delays.ending
        self.host.order(vm.name, Order.END)
        operation = self.operation(max(0.0, vm.ends - time.monotonic()))
        self.advance()
        return operation

    def remove_part(self, name: str) -> None:
        """Delete a disk, interface or address. Raises `Refused` while something holds it; absent is well."""
        part = self.parts.get(name.lower())
        if part is None:
            return
        for held, refused in (
            (part.get("managedBy"), Refused("OperationNotAllowed", f"Disk {name} is attached to a VM.", status=409)),
            (part["properties"].get("virtualMachine"), Refused("NicInUse", f"{name} is used by an existing VM.")),
            (
                part["properties"].get("ipConfiguration"),
                Refused("PublicIPAddressCannotBeDeleted", f"{name} is still allocated to a resource."),
            ),
        ):
            if held:
                raise refused
        if time.monotonic() < self.held.get(name.lower(), 0.0):
            raise reserved(name)
        self._drop(name.lower())
        for other in self.parts.values():  # an address of a deleted interface is free
            holder = (other["properties"].get("ipConfiguration") or {}).get("id", "").lower()
            if holder.startswith(name.lower() + "/"):
                del other["properties"]["ipConfiguration"]

    def tag(self, part: Body, tags: Mapping[str, str]) -> None:
        """New tags on a part."""
        part["tags"] = dict(tags)
        kind = part["type"].split("/")[1]
        self._ledger.add(Resource(kind=_KINDS[kind], id=part["name"], cost=_COSTS[kind], tags=tags))

    def make_disk(self, name: str, *, zone: str = "", tags: Mapping[str, str] | None = None) -> str:
        """A data disk, as a volume of a pod; not in the ledger: nobody here made it."""
        part = self._part("Compute", "disks", name, {"diskState": "Unattached", "diskSizeGB": 8})
        self._ledger.remove("disk", name)
        if zone:
            part["zones"] = [zone]
        part["tags"] = dict(tags or {})
        return str(part["id"])

    def id_of(self, service: str, kind: str, name: str) -> str:
        """A resource's id."""
        return f"{self._site.base}/Microsoft.{service}/{kind}/{name}"

    def _make_parts(self, vm: Vm) -> None:
        disk = vm.body["properties"]["storageProfile"]["osDisk"]
        part = self._part("Compute", "disks", disk["name"], {"diskState": "Attached"})
        part["managedBy"] = self.id_of("Compute", "virtualMachines", vm.name)
        vm.parts.append(part["id"].lower())
        self._make_nics(vm)
        for one in vm.parts:
            if "networkinterfaces" in one:
                self.parts[one]["properties"]["virtualMachine"] = {"id": part["managedBy"]}
        if not vm.failed[0]:
            self._boot(vm)

    def _boot(self, vm: Vm) -> None:
        nic = next(self.parts[one] for one in vm.parts if "networkinterfaces" in one)
        address = IPv4Address(nic["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"])
        encoded = vm.body["properties"].get("userData")
        user_data = base64.b64decode(encoded) if encoded else None
        after = max(0.0, self.delays.power - vm.age)
        self.host.begin(vm.name, Guest(address=address, user_data=user_data, after=after))

    def _make_nics(self, vm: Vm) -> None:
        for wanted in vm.body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
            inner = wanted["properties"]
            name = f"{wanted['name']}-{next(self._numbers):08x}"
            number = next(self._numbers)
            configs = []
            nic = self._part("Network", "networkInterfaces", name, {"ipConfigurations": configs}, wanted.get("tags"))
            vm.parts.append(nic["id"].lower())
            for address in inner["ipConfigurations"]:
                said: Body = {"privateIPAddress": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
                if public := address["properties"].get("publicIPAddressConfiguration"):
                    whole = {"ipAddress": f"20.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
                    ip_name = f"{public['name']}-{number:08x}"
                    ip = self._part("Network", "publicIPAddresses", ip_name, whole, public.get("tags"))
                    ip["properties"]["ipConfiguration"] = {"id": f"{nic['id']}/ipConfigurations/{address['name']}"}
                    said["publicIPAddress"] = {"id": ip["id"]}
                    vm.parts.append(ip["id"].lower())
                configs.append({"name": address["name"], "properties": said})

    def _part(self, service: str, kind: str, name: str, inner: Body, tags: Mapping[str, str] | None = None) -> Body:
        part: Body = {
            "id": self.id_of(service, kind, name),
            "name": name,
            "type": f"Microsoft.{service}/{kind}",
            "location": self._site.region,
            "properties": {"provisioningState": "Succeeded", **inner},
        }
        self.parts[part["id"].lower()] = part
        self.born[part["id"].lower()] = time.monotonic()
        self.tag(part, tags or {})
        if not tags:
            del part["tags"]
        return part

    def _hold_disks(self, body: Body, holder: str) -> None:
        for one in body["properties"]["storageProfile"].get("dataDisks") or ():
            disk = self.parts[one["managedDisk"]["id"].lower()]
            disk["managedBy"], disk["properties"]["diskState"] = holder, "Attached"

    def _end(self, vm: Vm) -> None:
        """The VM goes, and with it what has deleteOption Delete; data disks are detached."""
        del self.vms[vm.name.lower()]
        self._ledger.remove("vm", vm.name)
        inner = vm.body["properties"]
        nics = inner["networkProfile"]["networkInterfaceConfigurations"]
        goes = {
            "disks": inner["storageProfile"]["osDisk"].get("deleteOption") == "Delete",
            "networkinterfaces": all(one["properties"].get("deleteOption") == "Delete" for one in nics),
            "publicipaddresses": '"deleteOption": "Delete"' in str(nics).replace("'", '"'),
        }
        for one in vm.parts:
            if goes[one.split("/")[-2]]:
                self._drop(one)
            else:
                self.parts[one].pop("managedBy", None)
                self.parts[one]["properties"].pop("virtualMachine", None)
        for one in inner["storageProfile"].get("dataDisks") or ():
            disk = self.parts[one["managedDisk"]["id"].lower()]
            disk.pop("managedBy", None)
            disk["properties"]["diskState"] = "Unattached"

    def _drop(self, name: str) -> None:
        part = self.parts.pop(name, None)
        if part is not None:
            self._ledger.remove(_KINDS[part["type"].split("/")[1]], part["name"])


def reserved(name: str) -> Refused:
    """How Azure says that it keeps this interface for a VM, which may be lost."""
    words = "Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Please provide another nic(s)"
    return Refused("NicReservedForAnotherVm", f"{words} or retry after 180 seconds. Reserved VM: {name}")


_KINDS = {"disks": "disk", "networkInterfaces": "nic", "publicIPAddresses": "address"}
_COSTS = {"disks": 0.005, "networkInterfaces": 0.0, "publicIPAddresses": 0.004}


def shown(vm: Vm, estate: Estate, *, expand: bool) -> Body:
    """A VM as Azure tells it: no user data, real interfaces in place of those that were asked for."""
    inner: Body = {key: value for key, value in vm.body["properties"].items() if key != "userData"}
    nics = [estate.parts[one] for one in vm.parts if "networkinterfaces" in one and one in estate.parts]
    inner["networkProfile"] = {
        "networkInterfaces": [
            {"id": one["id"], "properties": {"primary": number == 0, "deleteOption": "Delete"}}
            for number, one in enumerate(nics)
        ]
    }
    disks = [one for one in vm.parts if "/disks/" in one]
    if disks and disks[0] in estate.parts:
        storage = dict(inner["storageProfile"])
        managed = {**storage["osDisk"]["managedDisk"], "id": estate.parts[disks[0]]["id"]}
        inner["storageProfile"] = {**storage, "osDisk": {**storage["osDisk"], "managedDisk": managed}}
    stage = staged(vm, estate.delays)
    inner |= {"provisioningState": stage, "timeCreated": vm.created, "vmId": vm.operation}
    if expand:
        inner["instanceView"] = view(vm, estate.delays)
    return {
        "id": estate.id_of("Compute", "virtualMachines", vm.name),
        "name": vm.name,
        "type": "Microsoft.Compute/virtualMachines",
        **{key: vm.body[key] for key in ("location", "tags", "zones", "identity") if key in vm.body},
        "properties": inner,
    }


def staged(vm: Vm, delays: Delays) -> str:
    """The provisioning state."""
    if vm.ends:
        return "Deleting"
    if vm.unheard:
        return "Failed"
    if vm.failed[0]:
        return "Failed" if vm.age >= delays.power else "Creating"
    return "Succeeded" if vm.age >= delays.made else "Creating"


def view(vm: Vm, delays: Delays) -> Body:
    """The instance view."""
    stage = staged(vm, delays).lower()
    if vm.unheard:
        late = {"code": "ProvisioningState/failed/OSProvisioningTimedOut", "level": "Error", "message": "Too late."}
        return {"statuses": [late, {"code": f"PowerState/{vm.halted or 'running'}", "level": "Info"}]}
    if stage == "failed" and vm.mute:
        return {"statuses": [{"code": "ProvisioningState/failed", "level": "Error"}]}
    if stage == "failed":
        code, words = vm.failed
        return {"statuses": [{"code": f"ProvisioningState/failed/{code}", "level": "Error", "message": words}]}
    statuses = [{"code": f"ProvisioningState/{stage}", "level": "Info"}]
    if vm.age >= delays.power:
        statuses.append({"code": f"PowerState/{vm.halted or 'running'}", "level": "Info"})
    return {"statuses": statuses}
