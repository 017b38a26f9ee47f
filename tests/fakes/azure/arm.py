"""Azure Resource Manager and the token endpoint behind the wire: routes, rights, and the answers' shapes."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from azure.mgmt.compute import models

from tests.fakes.azure import state
from tests.fakes.azure.identity import Identity
from tests.fakes.azure.model import Refused, answer, check
from tests.fakes.azure.quota import Quota, family
from tests.fakes.azure.role import NEEDS, Role
from tests.fakes.azure.rules import Site, refuse_launch, refuse_tags
from tests.fakes.azure.state import Delays, Estate
from tests.fakes.faults import Fault, Faults
from tests.fakes.ledger import Ledger
from tests.fakes.machines import Order
from tests.fakes.wire import Reply, Request

_C, _N = "/providers/Microsoft.Compute", "/providers/Microsoft.Network"
_RG = r"/subscriptions/(?P<sub>[^/]+)/resourceGroups/(?P<group>[^/]+)"
_SUB = r"/subscriptions/(?P<sub>[^/]+)"
ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", rf"{_RG}(/providers/.+)?/providers/Microsoft.Authorization/permissions", "Permissions.List"),
    ("PUT", rf"{_RG}{_C}/virtualMachines/(?P<name>[^/]+)", "VirtualMachines.CreateOrUpdate"),
    ("GET", rf"{_RG}{_C}/virtualMachines/(?P<name>[^/]+)", "VirtualMachines.Get"),
    ("DELETE", rf"{_RG}{_C}/virtualMachines/(?P<name>[^/]+)", "VirtualMachines.Delete"),
    ("GET", rf"{_RG}{_C}/virtualMachines", "VirtualMachines.List"),
    ("GET", rf"{_RG}{_C}/virtualMachines/(?P<name>[^/]+)/instanceView", "VirtualMachines.InstanceView"),
    ("POST", rf"{_RG}{_C}/virtualMachines/(?P<name>[^/]+)/retrieveBootDiagnosticsData", "VirtualMachines.Console"),
    ("GET", rf"{_SUB}{_C}/locations/(?P<region>[^/]+)/operations/(?P<name>[^/]+)", "Operations.Get"),
    ("GET", rf"{_SUB}{_N}/locations/(?P<region>[^/]+)/operations/(?P<name>[^/]+)", "NetworkOperations.Get"),
    ("GET", rf"{_SUB}{_C}/skus", "ResourceSkus.List"),
    ("GET", rf"{_SUB}{_C}/locations/(?P<region>[^/]+)/usages", "Usages.List"),
    ("GET", rf"{_RG}{_C}/galleries/[^/]+/images/[^/]+", "GalleryImages.Get"),
    ("GET", rf"{_RG}{_C}/galleries/[^/]+/images/[^/]+/versions/[^/]+", "GalleryImageVersions.Get"),
    ("GET", rf"{_SUB}{_C}/locations/[^/]+/communityGalleries/[^/]+/images/[^/]+", "CommunityGalleryImages.Get"),
    ("GET", rf"{_SUB}{_C}/locations/[^/]+/communityGalleries/.+/versions/[^/]+", "CommunityGalleryImageVersions.Get"),
    ("GET", rf"{_SUB}{_C}/locations/[^/]+/sharedGalleries/[^/]+/images/[^/]+", "SharedGalleryImages.Get"),
    ("GET", rf"{_SUB}{_C}/locations/[^/]+/sharedGalleries/.+/versions/[^/]+", "SharedGalleryImageVersions.Get"),
    ("GET", rf"{_RG}{_C}/images/[^/]+", "Images.Get"),
    ("GET", rf"{_RG}{_C}/disks/(?P<name>[^/]+)", "Disks.Get"),
    ("GET", rf"{_RG}{_C}/disks", "Disks.List"),
    ("PATCH", rf"{_RG}{_C}/disks/(?P<name>[^/]+)", "Disks.Update"),
    ("DELETE", rf"{_RG}{_C}/disks/(?P<name>[^/]+)", "Disks.Delete"),
    ("GET", rf"{_RG}{_N}/networkInterfaces/(?P<name>[^/]+)", "NetworkInterfaces.Get"),
    ("GET", rf"{_RG}{_N}/networkInterfaces", "NetworkInterfaces.List"),
    ("DELETE", rf"{_RG}{_N}/networkInterfaces/(?P<name>[^/]+)", "NetworkInterfaces.Delete"),
    ("GET", rf"{_RG}{_N}/publicIPAddresses/(?P<name>[^/]+)", "PublicIPAddresses.Get"),
    ("GET", rf"{_RG}{_N}/publicIPAddresses", "PublicIPAddresses.List"),
    ("DELETE", rf"{_RG}{_N}/publicIPAddresses/(?P<name>[^/]+)", "PublicIPAddresses.Delete"),
    ("GET", rf"{_RG}{_N}/virtualNetworks/[^/]+/subnets/[^/]+", "Subnets.Get"),
    ("GET", rf"{_RG}{_N}/networkSecurityGroups/[^/]+", "NetworkSecurityGroups.Get"),
)
_COMPILED = tuple((method, re.compile(path, re.IGNORECASE), name) for method, path, name in ROUTES)
_PAGE = 40
TOKEN = "Token"
ABROAD = ("GalleryImages.Get", "GalleryImageVersions.Get", "Permissions.List")  # what another subscription may have


class Azure:
    """One subscription with one resource group, and the tenant that gives tokens for it."""

    def __init__(self, role: Role) -> None:
        self.site, self.ledger, self.faults, self.delays = Site(), Ledger(), Faults(), Delays()
        self.role = role
        self.estate = Estate(self.site, self.ledger, self.delays)
        self.identity = Identity(self.site.tenant)
        self.reserved = 0  # PUTs to come that are refused because Azure keeps an interface for another VM
        self.half_made = 0  # PUTs to come that break off after the interfaces were made
        self.quota = Quota(self.site)
        self.rules: list[dict[str, Any]] = []
        self.subnet_range, self.subnet_group = "10.0.0.0/16", ""
        self.began, self.ending = threading.Event(), threading.Event()
        self._lock = threading.RLock()
        self._routes: dict[str, Callable[[Request, dict[str, str]], Reply]] = {
            name: getattr(self, "_" + name.replace(".", "_").lower(), self._image) for _, _, name in ROUTES
        }

    def call_of(self, request: Request) -> str:
        return TOKEN if request.path.endswith("/oauth2/v2.0/token") else self._route(request)[0]

    def answer(self, request: Request) -> Reply:
        with self._lock:
            try:
                return self._answer(request)
            except Refused as refused:
                return refused.reply()

    def refusal(self, fault: Fault, request: Request) -> Reply:
        call = self.call_of(request)
        if call == TOKEN:
            return self.identity.refusal(fault, self.faults.retry_after)
        retry = {"Retry-After": f"{self.faults.retry_after:g}"} if self.faults.retry_after else {}
        if fault is Fault.THROTTLED:
            return Refused("TooManyRequests", "The request is being throttled.", status=429).reply(retry)
        if fault is Fault.UNAUTHORISED:
            return _denied(NEEDS[call][0]).reply()
        if fault is Fault.CAPACITY:
            return Refused("AllocationFailed", "We do not have sufficient capacity for the size.", status=409).reply()
        return Refused("QuotaExceeded", "Operation results in exceeding approved cores quota.", status=409).reply()

    def halt(self, name: str) -> None:
        """The VM stops by itself."""
        with self._lock:
            self.estate.vms[name.lower()].halted = "stopped"
            self.estate.host.order(name, Order.STOP)

    def settle(self) -> Ledger:
        """The ledger of this instant."""
        with self._lock:
            self.estate.advance()
            return self.ledger

    def _route(self, request: Request) -> tuple[str, dict[str, str]]:
        path = unquote(request.path).rstrip("/")
        for method, pattern, name in _COMPILED:
            if method == request.method and (match := pattern.fullmatch(path)):
                return name, match.groupdict()
        return "", {}

    def _answer(self, request: Request) -> Reply:
        self.estate.advance()
        call, parts = self._route(request)
        if not call:
            return self._outside(request)
        if not self.identity.is_good(request.headers.get("authorization", "")):
            raise Refused("InvalidAuthenticationToken", "The access token is invalid.", status=401)
        elsewhere = call in ABROAD and parts["sub"] == self.site.other_subscription
        if parts["sub"].lower() != self.site.subscription and not elsewhere:
            raise Refused("SubscriptionNotFound", "The subscription could not be found.", status=404)
        if "group" in parts and parts["group"].lower() != self.site.group and not elsewhere:
            raise Refused("ResourceGroupNotFound", f"Resource group '{parts['group']}' could not be found.", status=404)
        if "api-version" not in request.query:
            raise Refused("MissingApiVersionParameter", "The api-version query parameter is required.")
        if denied := self.role.missing(call, _body(request) if request.body else {}):
            raise _denied(denied[0])
        return self._routes[call](request, parts)

    def _outside(self, request: Request) -> Reply:
        if request.path.endswith("/openid-configuration"):
            return self.identity.discover(request)
        if request.path.endswith("/oauth2/v2.0/token"):
            return self.identity.token(request)
        if (found := re.fullmatch(r"/blob/([^/]+)/serial\.log", request.path)) and "sig" in request.query:
            if "authorization" in request.headers:
                raise Refused("InvalidAuthenticationInfo", "A signed URL takes no token.")
            return Reply(body=self.estate.host.console(found[1]) or b"[    0.000000] Linux version 6.12\n")
        raise Refused("InvalidResourceType", f"{request.method} {request.path} is nothing here.", status=404)

    def _virtualmachines_createorupdate(self, request: Request, parts: dict[str, str]) -> Reply:
        body, name = _body(request), parts["name"]
        check(models.VirtualMachine, body)
        if name.lower() in self.estate.vms:
            if request.headers.get("if-none-match") == "*":
                raise Refused("PreconditionFailed", f"The VM {name} exists.", status=412)
            raise Refused("PropertyChangeNotAllowed", "Changing property 'osProfile' is not allowed.", status=409)
        refuse_launch(self.site, name, body)
        self._refuse_disks(body)
        size = body["properties"]["hardwareProfile"]["vmSize"]
        self.quota.refuse(body, self._bodies())
        if self.reserved:
            self.reserved -= 1
            raise state.reserved(f"{name}-net")
        if self.half_made:
            self.half_made -= 1
            self.estate.half_make(name, body)
            raise Refused("InternalExecutionError", "An internal execution error occurred.", status=500)
        zone = next(iter(body.get("zones") or ()), "")
        failed = ("", "")
        if not self.faults.has_room(size, zone):
            code = "ZonalAllocationFailed" if zone else "AllocationFailed"
            failed = (code, f"Allocation failed. We do not have sufficient capacity for {size}.")
        vm = self.estate.put(name, body, failed)
        self.began.set()
        return answer(
            state.shown(vm, self.estate, expand=False), status=201, headers=self._follow(request, vm.operation)
        )

    def _virtualmachines_get(self, request: Request, parts: dict[str, str]) -> Reply:
        vm = self._vm(parts["name"])
        return answer(state.shown(vm, self.estate, expand=request.query.get("$expand") == "instanceView"))

    def _virtualmachines_instanceview(self, request: Request, parts: dict[str, str]) -> Reply:
        return answer(state.view(self._vm(parts["name"]), self.delays))

    def _virtualmachines_list(self, request: Request, parts: dict[str, str]) -> Reply:
        expand = request.query.get("$expand") == "instanceView"
        seen = [one for one in self.estate.vms.values() if one.age >= self.faults.visible_after]
        return self._paged(request, [state.shown(one, self.estate, expand=expand) for one in seen])

    def _virtualmachines_delete(self, request: Request, parts: dict[str, str]) -> Reply:
        vm = self.estate.vms.get(parts["name"].lower())
        if vm is None:
            return Reply(status=204)
        self.ending.set()
        return Reply(status=202, headers=self._follow(request, self.estate.delete(vm)))

    def _virtualmachines_console(self, request: Request, parts: dict[str, str]) -> Reply:
        self._vm(parts["name"])
        base = f"https://{request.headers['host']}/blob/{parts['name']}"
        signed = {
            "consoleScreenshotBlobUri": f"{base}/s.bmp?sig=1",
            "serialConsoleLogBlobUri": f"{base}/serial.log?sig=1",
        }
        return answer(signed)

    def _operations_get(self, request: Request, parts: dict[str, str]) -> Reply:
        found = self.estate.operations.get(parts["name"])
        if found is None:
            raise Refused("NotFound", "The operation is not known.", status=404)
        until, code, words = found
        if time.monotonic() < until:
            return answer({"name": parts["name"], "status": "InProgress"}, headers={"Retry-After": "1"})
        if code:
            return answer({"name": parts["name"], "status": "Failed", "error": {"code": code, "message": words}})
        return answer({"name": parts["name"], "status": "Succeeded"})

    def _resourceskus_list(self, request: Request, parts: dict[str, str]) -> Reply:
        if request.query.get("$filter") not in (None, f"location eq '{self.site.region}'"):
            return answer({"value": []})
        lines = [_sku(name, one, self.site.region) for name, one in self.site.sizes.items()]
        return answer(
            {"value": [*lines, {"resourceType": "disks", "name": "Premium_LRS", "locations": [self.site.region]}]}
        )

    def _usages_list(self, request: Request, parts: dict[str, str]) -> Reply:
        return answer({"value": self.quota.usages(self._bodies())})

    def _image(self, request: Request, parts: dict[str, str]) -> Reply:
        """An image or a version of any kind; other people's galleries are named below a region, and without one."""
        path = unquote(request.path)
        others = re.fullmatch(rf"{_SUB}{_C}/locations/[^/]+/(community|shared)(galleries/.+)", path, re.IGNORECASE)
        name = f"/{others[2].title()}G{others[3][1:]}" if others else path
        found = self.site.tell_image(name)
        if found is None:
            raise _absent(name)
        return answer({"id": name, "location": self.site.region, "properties": found})

    def _disks_get(self, request: Request, parts: dict[str, str]) -> Reply:
        return answer(self._part("Compute", "disks", parts["name"]))

    def _disks_list(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._parts(request, "/disks/")

    def _disks_update(self, request: Request, parts: dict[str, str]) -> Reply:
        body, part = _body(request), self._part("Compute", "disks", parts["name"])
        check(models.DiskUpdate, body)
        refuse_tags(body.get("tags") or {})
        self.estate.tag(part, body.get("tags") or {})
        return answer(part)

    def _disks_delete(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._removed(request, "Compute", "disks", parts["name"])

    def _networkinterfaces_get(self, request: Request, parts: dict[str, str]) -> Reply:
        return answer(self._part("Network", "networkInterfaces", parts["name"]))

    def _networkinterfaces_list(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._parts(request, "/networkinterfaces/")

    def _networkinterfaces_delete(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._removed(request, "Network", "networkInterfaces", parts["name"])

    def _publicipaddresses_get(self, request: Request, parts: dict[str, str]) -> Reply:
        return answer(self._part("Network", "publicIPAddresses", parts["name"]))

    def _publicipaddresses_list(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._parts(request, "/publicipaddresses/")

    def _publicipaddresses_delete(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._removed(request, "Network", "publicIPAddresses", parts["name"])

    def _permissions_list(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._paged(request, self.role.told())

    def _subnets_get(self, request: Request, parts: dict[str, str]) -> Reply:
        if request.path.lower() != self.site.subnet.lower():
            raise _absent(request.path)
        inner: dict[str, Any] = {"addressPrefix": self.subnet_range, "ipConfigurations": []}
        if self.subnet_group:
            inner["networkSecurityGroup"] = {"id": self.subnet_group}
        return answer({"id": self.site.subnet, "properties": inner})

    def _networksecuritygroups_get(self, request: Request, parts: dict[str, str]) -> Reply:
        if request.path.lower() != self.site.nsg.lower():
            raise _absent(request.path)
        common = {"direction": "Inbound", "protocol": "*", "destinationPortRange": "*"}
        vnet = {**common, "access": "Allow", "priority": 65000, "sourceAddressPrefix": "VirtualNetwork"}
        none = {**common, "access": "Deny", "priority": 65500, "sourceAddressPrefix": "*"}
        rules = {"securityRules": self.rules, "defaultSecurityRules": [{"properties": vnet}, {"properties": none}]}
        return answer({"id": self.site.nsg, "properties": rules})

    def _vm(self, name: str) -> state.Vm:
        vm = self.estate.vms.get(name.lower())
        if vm is None:
            raise _absent(name)
        return vm

    def _part(self, service: str, kind: str, name: str) -> state.Body:
        found = self.estate.parts.get(self.estate.id_of(service, kind, name).lower())
        if found is None:
            raise _absent(name)
        return found

    def _parts(self, request: Request, kind: str) -> Reply:
        now, lag = time.monotonic(), self.faults.visible_after
        seen = {name for name, born in self.estate.born.items() if now - born >= lag}
        return self._paged(request, [one for name, one in self.estate.parts.items() if kind in name and name in seen])

    def _removed(self, request: Request, service: str, kind: str, name: str) -> Reply:
        whole = self.estate.id_of(service, kind, name)
        if whole.lower() not in self.estate.parts:
            return Reply(status=204)
        self.estate.remove_part(whole)
        operation = self.estate.operation(self.delays.ending)
        return Reply(status=202, headers=self._follow(request, operation, service=service))

    def _bodies(self) -> list[state.Body]:
        return [one.body for one in self.estate.vms.values()]

    def _refuse_disks(self, body: state.Body) -> None:
        luns = set()
        for one in body["properties"]["storageProfile"].get("dataDisks") or ():
            disk = self.estate.parts.get(one["managedDisk"]["id"].lower())
            if disk is None or one["createOption"] != "Attach" or one["lun"] in luns:
                raise Refused("InvalidParameter", f"The data disk of LUN {one['lun']} is not valid.")
            luns.add(one["lun"])
            if disk.get("managedBy"):
                raise Refused("DiskAttachedToAnotherVm", "The disk is attached to another VM.", status=409)
            if disk.get("zones", []) and disk["zones"] != body.get("zones", []):
                raise Refused("BadRequest", "The disk is in another zone than the VM.")

    def _networkoperations_get(self, request: Request, parts: dict[str, str]) -> Reply:
        return self._operations_get(request, parts)

    def _follow(self, request: Request, operation: str, *, service: str = "Compute") -> dict[str, str]:
        subscription = f"/subscriptions/{self.site.subscription}/providers/Microsoft.{service}"
        base = f"https://{request.headers['host']}{subscription}"
        url = f"{base}/locations/{self.site.region}/operations/{operation}?p=1&api-version=2026-04-01&t=1&s=signed"
        return {"Azure-AsyncOperation": url, "Location": url + "&monitor=true", "Retry-After": "1"}

    def _paged(self, request: Request, found: list[state.Body]) -> Reply:
        begin = int(request.query.get("$skiptoken", "0"))
        page: dict[str, Any] = {"value": found[begin : begin + _PAGE]}
        if len(found) > begin + _PAGE:
            base = f"https://{request.headers['host']}{request.target.partition('&$skiptoken')[0]}"
            page["nextLink"] = f"{base}&$skiptoken={begin + _PAGE}"
        return answer(page)


def _body(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise Refused("InvalidRequestContent", "The request content is not valid JSON.") from error


def _absent(name: str) -> Refused:
    return Refused("ResourceNotFound", f"The Resource '{name}' under resource group 'pods' was not found.", status=404)


def _denied(action: str) -> Refused:
    return Refused(
        "AuthorizationFailed", f"The client does not have authorization to perform action '{action}'.", status=403
    )


def _sku(name: str, size: Any, region: str) -> dict[str, Any]:
    can = {"vCPUs": size.vcpus, "MemoryGB": size.memory_gib, "CpuArchitectureType": size.arch, "MaxDataDiskCount": 8}
    can |= {"GPUs": size.gpus} if size.gpus else {}
    can |= {"ConfidentialComputingType": size.tee} if size.tee else {}
    limits = []
    if size.restricted:
        kind = "Location" if size.restricted == "location" else "Zone"
        info = {"locations": [region], **({"zones": [size.restricted]} if kind == "Zone" else {})}
        why = "NotAvailableForSubscription"
        limits = [{"type": kind, "values": [region], "restrictionInfo": info, "reasonCode": why}]
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "family": family(name),
        "locations": [region],
        "locationInfo": [{"location": region, "zones": list(size.zones)}],
        "capabilities": [{"name": key, "value": str(value)} for key, value in can.items()],
        "restrictions": limits,
    }
