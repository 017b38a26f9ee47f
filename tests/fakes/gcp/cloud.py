"""Compute Engine and Resource Manager with all that a pod VM touches: requests in, a world that changes, a ledger."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from tests.fakes.faults import Fault, Faults
from tests.fakes.gcp.api import IAM_CREDENTIALS, Called, called, mistakes, problems
from tests.fakes.gcp.identity import EMAIL, Identity
from tests.fakes.gcp.model import Cloud, Operation
from tests.fakes.gcp.role import Role
from tests.fakes.gcp.rules import Refused, invalid, not_found, refuse_request_id
from tests.fakes.wire import Reply, Request

PROJECTS = ("demo-project", "image-project", "host-project")
_STATUS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE",
}  # fmt: skip
_REASONS: Mapping[str, str] = {
    "accessNotConfigured": "SERVICE_DISABLED", "forbidden": "IAM_PERMISSION_DENIED",
    "rateLimitExceeded": "RATE_LIMIT_EXCEEDED",
}  # fmt: skip
_LONGEST_WAIT = 120.0  # of zoneOperations.wait, as the API has it
_TERM = re.compile(r'\((name|labels\.[a-z0-9_-]+) = "([^"]*)"\)')
_REFUSALS: Mapping[Fault, tuple[int, str, str]] = {
    Fault.THROTTLED: (403, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' per minute"),
    Fault.UNAUTHORISED: (403, "forbidden", "Required 'compute.something' permission for 'projects/demo-project'"),
    Fault.CAPACITY: (503, "ZONE_RESOURCE_POOL_EXHAUSTED", "The zone does not have enough resources available"),
    Fault.QUOTA: (403, "quotaExceeded", "Quota 'CPUS' exceeded. Limit: 24.0 in region europe-west3"),
}


class GoogleCloud:
    """A `Service` for `tests.fakes.wire`. `cloud` is the world, `identity` who may ask, `role` what they may do."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.cloud = Cloud(self.faults)
        self.identity = Identity()
        self.disabled: set[str] = set()  # kinds of resources whose API the project has not enabled
        self.role = Role.of_page()

    def call_of(self, request: Request) -> str:
        """The id of the call in Google's description; "" for tokens, which faults leave alone."""
        found = called(request.method, request.path)
        return found.name if found and found.api is not IAM_CREDENTIALS else ""

    def answer(self, request: Request) -> Reply:
        """Do it."""
        if found := self.identity.answer(request):
            return found
        plain = request.path.startswith("/compute/")
        if not self.identity.knows(request):
            words = "Request had invalid authentication credentials."
            return _error(Refused(401, "authError", words), plain=plain)
        try:
            return _json(200, self._answer(request))
        except Refused as refused:
            return _error(refused, plain=plain)

    def refusal(self, fault: Fault, request: Request) -> Reply:
        """No room is told by an operation that fails, all else at once."""
        found = called(request.method, request.path)
        if fault is Fault.CAPACITY and found and found.name == "instances.insert":
            return _json(200, self.cloud.no_room(found.parts["zone"], json.loads(request.body)["name"]).reply(EMAIL))
        error = _error(Refused(*_REFUSALS[fault]), plain=request.path.startswith("/compute/"))
        if fault is Fault.THROTTLED and self.faults.retry_after:
            return Reply(status=error.status, body=error.body, headers={"Retry-After": str(self.faults.retry_after)})
        return error

    def _answer(self, request: Request) -> Mapping[str, Any]:
        body = json.loads(request.body) if request.body else None
        found = called(request.method, request.path)
        if found is None:
            raise Refused(404, "notFound", f"no such call: {request.method} {request.path}")
        query = {key: value for key, value in request.query.items() if key != "$alt"}
        if wrong := list(problems(found, query, body)):
            raise Refused(400, "badRequest", wrong[0])
        project = found.parts.get("project") or found.parts.get("projectsId", PROJECTS[0])
        if project not in PROJECTS:
            raise not_found(f"projects/{project}")
        if (kind := found.name.partition(".")[0]) in self.disabled:
            raise Refused(403, "accessNotConfigured", f"The API of {kind} has not been used in {PROJECTS[0]} before")
        self.role.refuse(found, body or {})
        handler = getattr(self, "_" + found.name.replace(".", "_"), None)
        if handler is None:
            raise Refused(501, "notImplemented", f"the fake does not have {found.name}")
        self.cloud.settle()
        answer: Mapping[str, Any] = handler(found, query, body)
        if wrong := list(mistakes(found, answer)):
            raise AssertionError(f"the fake of {found.name}: {wrong[0]}")
        return answer

    def _projects_testIamPermissions(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self._granted(body, f"projects/{call.parts['projectsId']}")

    def _tagValues_testIamPermissions(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self._granted(body, f"tagValues/{call.parts['tagValuesId']}")

    def _images_testIamPermissions(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        path = call.path.removesuffix("/testIamPermissions")
        self.cloud.image(path)
        return self._granted(body, path)

    def _subnetworks_testIamPermissions(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        path = call.path.removesuffix("/testIamPermissions")
        self.cloud.refuse_unknown(path)
        return self._granted(body, path)

    def _granted(self, body: Mapping[str, Any], resource: str) -> Mapping[str, Any]:
        found = self.role.granted(body.get("permissions"), resource)
        return {"permissions": found} if found else {}

    def _tagValues_getNamespaced(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        found = self.cloud.tags.get(query.get("name", ""))
        if found is None:
            raise Refused(403, "forbidden", "Permission denied on the tag value, or it does not exist")
        return {"name": found[1], "parent": found[0], "shortName": query["name"].rpartition("/")[2]}

    def _instances_insert(self, call: Called, query: Mapping[str, str], body: dict[str, Any]) -> Mapping[str, Any]:
        key = query.get("requestId", "")
        if key:
            refuse_request_id(key)
        operation = self.cloud.replay(key) or self.cloud.insert(call.parts["zone"], body, key)
        return operation.reply(EMAIL)

    def _instances_delete(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.delete(call.parts["zone"], call.parts["instance"]).reply(EMAIL)

    def _instances_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.instance(call.parts["zone"], call.parts["instance"])

    def _instances_aggregatedList(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self._aggregated("instances", self.cloud.visible_instances(), query)

    def _instances_getSerialPortOutput(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        self.cloud.instance(call.parts["zone"], call.parts["instance"])
        printed = self.cloud.host.console(call.parts["instance"]).decode(errors="replace") or "Linux version 6.1\n"
        return {"kind": "compute#serialPortOutput", "contents": printed, "start": "0", "next": str(len(printed))}

    def _disks_aggregatedList(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self._aggregated("disks", self.cloud.visible_disks(), query)

    def _disks_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.disk(call.parts["zone"], call.parts["disk"])

    def _disks_delete(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.delete_disk(call.parts["zone"], call.parts["disk"]).reply(EMAIL)

    def _zoneOperations_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self._operation(call).reply(EMAIL)

    def _zoneOperations_wait(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        operation, end = self._operation(call), time.monotonic() + _LONGEST_WAIT
        while not operation.done and time.monotonic() < end and not self.cloud.over.is_set():
            time.sleep(0.005)
            self.cloud.settle()
        return operation.reply(EMAIL)

    def _machineTypes_list(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        found = [one for one in self.cloud.machine_types(call.parts["zone"]) if _selects(query.get("filter", ""), one)]
        return {"kind": "compute#machineTypeList", "items": found}

    def _machineTypes_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.machine_type(call.parts["zone"], call.parts["machineType"])

    def _images_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.image(f"projects/{call.parts['project']}/global/images/{call.parts['image']}")

    def _images_getFromFamily(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.image(f"projects/{call.parts['project']}/global/images/family/{call.parts['family']}")

    def _zones_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        zone = call.parts["zone"]
        if zone not in self.cloud.zones:
            raise not_found(f"projects/demo-project/zones/{zone}")
        return {"name": zone, "availableCpuPlatforms": self.cloud.zones[zone]}

    def _regions_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        region = call.parts["region"]
        if not any(zone.startswith(f"{region}-") for zone in self.cloud.zones):
            raise not_found(f"projects/demo-project/regions/{region}")
        used = self.cloud.usage(region)
        quotas = [{"metric": one, "limit": most, "usage": used[one]} for one, most in self.cloud.quotas.items()]
        return {"name": region, "quotas": quotas}

    def _subnetworks_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        self.cloud.refuse_unknown(call.path)
        found: dict[str, Any] = {"name": call.parts["subnetwork"], "ipCidrRange": "10.1.0.0/24"}
        if query.get("views") == "WITH_UTILIZATION":
            free = [{"totalFreeIp": str(self.cloud.free_addresses), "totalAllocatedIp": "3"}]
            found["utilizationDetails"] = {"ipv4Utilizations": free}
        return found

    def _networks_getEffectiveFirewalls(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        self.cloud.refuse_unknown(call.path.removesuffix("/getEffectiveFirewalls"))
        return {"firewalls": self.cloud.firewalls, "firewallPolicys": self.cloud.policies}

    def _acceleratorTypes_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        name, zone = call.parts["acceleratorType"], call.parts["zone"]
        if name not in self.cloud.accelerators.get(zone, ()):
            raise not_found(call.path)
        return {"name": name, "maximumCardsPerInstance": 4, "zone": zone}

    def _regionDisks_get(self, call: Called, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        return self.cloud.disk(call.parts["region"], call.parts["disk"])

    def _operation(self, call: Called) -> Operation:
        found = self.cloud.operations.get(call.parts["operation"])
        if found is None or found.zone != call.parts["zone"]:
            raise not_found(f"projects/demo-project/zones/{call.parts['zone']}/operations/{call.parts['operation']}")
        return found

    def _aggregated(self, kind: str, found: list[dict[str, Any]], query: Mapping[str, str]) -> Mapping[str, Any]:
        seen = [one for one in found if str(one.get("zone", "")).rpartition("/")[2] not in self.cloud.dark]
        chosen = [one for one in seen if _selects(query.get("filter", ""), one)]
        at, most = int(query.get("pageToken") or 0), min(int(query.get("maxResults", 500)), self.cloud.page)
        scopes: dict[str, Any] = {
            f"zones/{zone}": {"warning": {"code": "UNREACHABLE" if zone in self.cloud.dark else "NO_RESULTS_ON_PAGE"}}
            for zone in self.cloud.zones
        }
        for one in chosen[at : at + most]:
            place = "zones" if "zone" in one else "regions"
            scope = scopes.setdefault(f"{place}/{one[place[:-1]].rpartition('/')[2]}", {})
            scope.pop("warning", None)
            scope.setdefault(kind, []).append(one)
        more: dict[str, Any] = {"nextPageToken": str(at + most)} if at + most < len(chosen) else {}
        if self.cloud.dark:
            more["unreachables"] = [f"projects/demo-project/zones/{one}" for one in sorted(self.cloud.dark)]
        return {"kind": f"compute#{kind}AggregatedList", "items": scopes, **more}


def _selects(text: str, one: Mapping[str, Any]) -> bool:
    """A filter of comparisons that are all joined by AND, or all by OR; anything else is refused."""
    if not text:
        return True
    joiner = " OR " if " OR " in text else " AND "
    terms = [_TERM.fullmatch(part) for part in text.split(joiner)]
    if not all(terms):
        raise invalid("filter", f"'{text}'. Invalid list filter expression")
    labels = one.get("labels", {})
    told = [
        (one.get("name") if term[1] == "name" else labels.get(term[1].removeprefix("labels."))) == term[2]
        for term in terms
        if term
    ]
    return any(told) if joiner == " OR " else all(told)


def _json(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def _error(refused: Refused, *, plain: bool) -> Reply:
    """As Compute Engine writes it (`plain`), or as Google's newer APIs do."""
    number = 429 if refused.reason == "rateLimitExceeded" and not plain else refused.status
    told: dict[str, Any] = {"code": number, "message": refused.words}
    if plain:
        told["errors"] = [{"message": refused.words, "domain": "global", "reason": refused.reason}]
    else:
        reason, status = _REASONS.get(refused.reason), _STATUS.get(number, "UNKNOWN")
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
        told |= {"status": status, "details": [info]} if reason else {"status": status}
    return _json(number, {"error": told})
