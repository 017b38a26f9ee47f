"""What is made in the fake: instances, disks, operations; all by one lock."""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from tests.fakes.faults import Faults
from tests.fakes.gcp.land import PROJECT, ROOT, Land, costs
from tests.fakes.gcp.rules import Refused, invalid, not_found, refuse_instance
from tests.fakes.ledger import Ledger, Resource
from tests.fakes.machines import Guest, Host, Nowhere, Order

_HOURLY = {"instance": 0.1, "disk": 0.001}


@dataclass
class Operation:
    """A long-running operation; its effect comes when it is done."""

    name: str
    zone: str
    kind: str
    target: str
    due: float
    effect: Callable[[], None]
    error: tuple[str, str] | None = None
    done: bool = False

    def reply(self, user: str) -> Mapping[str, Any]:
        """As the API writes it."""
        found: dict[str, Any] = {
            "kind": "compute#operation",
            "id": self.name.rpartition("-")[2],
            "name": self.name,
            "zone": f"{ROOT}projects/{PROJECT}/zones/{self.zone}",
            "operationType": self.kind,
            "targetLink": f"{ROOT}{self.target}",
            "status": "DONE" if self.done else "RUNNING",
            "user": user,
            "progress": 100 if self.done else 0,
        }
        if self.done and self.error:
            found["error"] = {"errors": [{"code": self.error[0], "message": self.error[1]}]}
            found["httpErrorStatusCode"] = 503
        return found


@dataclass
class Delays:
    """Seconds from the call to its end, and to the address of a new instance."""

    making: float = 0.0
    ending: float = 0.0
    address: float = 0.0


class Cloud(Land):
    """Everything there is. `half_made` lets an insert without room leave its disk behind, as it may happen."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.ledger = Ledger()
        self.delays = Delays()
        self.half_made = False
        self.page = 500
        self.over = threading.Event()
        self.began = threading.Event()
        self.inserts: list[dict[str, Any]] = []
        self.operations: dict[str, Operation] = {}
        self.host: Host = Nowhere()
        self._instances: dict[tuple[str, str], dict[str, Any]] = {}
        self._disks: dict[tuple[str, str], dict[str, Any]] = {}
        self._born: dict[int, float] = {}
        self._requests: dict[str, str] = {}
        self._numbers = itertools.count(1000)
        self._lock = threading.RLock()

    def settle(self) -> None:
        """Let happen what is due."""
        with self._lock:
            for one in list(self.operations.values()):
                if not one.done and one.due <= time.monotonic():
                    one.effect()
                    one.done = True

    def replay(self, key: str) -> Operation | None:
        """The operation that a request id stands for already."""
        with self._lock:
            return self.operations.get(self._requests.get(key, ""))

    def insert(self, zone: str, body: dict[str, Any], key: str) -> Operation:
        """Make an instance; it is there at once, and runs when the operation is done."""
        with self._lock:
            image = self._refuse(zone, body)
            self.inserts.append(body)
            self.began.set()
            kind = body["machineType"].rpartition("/")[2]
            tee = body.get("confidentialInstanceConfig", {}).get("confidentialInstanceType", "")
            if (tee, zone) in self.without_tee:
                operation = self.no_room(zone, body["name"], code="ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS")
            elif not self.faults.has_room(kind, zone):
                if self.half_made:
                    self._make_disk(zone, body["disks"][0], image, used=False)
                operation = self.no_room(zone, body["name"])
            else:
                operation = self._made(zone, body, image)
            if key:
                self._requests[key] = operation.name
            return operation

    def no_room(self, zone: str, name: str, code: str = "ZONE_RESOURCE_POOL_EXHAUSTED") -> Operation:
        """An operation that fails."""
        words = f"The zone 'projects/{PROJECT}/zones/{zone}' does not have enough resources available"
        target = f"projects/{PROJECT}/zones/{zone}/instances/{name}"
        error = (code, words)
        return self._operation(
            (zone, "insert"), target=target, takes=self.delays.making, effect=lambda: None, error=error
        )

    def delete(self, zone: str, name: str) -> Operation:
        """Remove an instance, and the disks that go with it."""
        with self._lock:
            found = self.instance(zone, name)
            found["status"], target = "STOPPING", found["selfLink"].removeprefix(ROOT)
            self.host.order(name, Order.END)

            def effect() -> None:
                if self._instances.pop((zone, name), None) is None:
                    return
                self.ledger.remove("instance", f"{zone}/{name}")
                for one in found["disks"]:
                    self._disk_at(one["source"])["users"].remove(name)
                    if one["autoDelete"]:
                        self._drop_disk(zone, one["source"].rpartition("/")[2])

            return self._operation((zone, "delete"), target=target, takes=self.delays.ending, effect=effect)

    def delete_disk(self, zone: str, name: str) -> Operation:
        """Remove a disk that nothing uses."""
        with self._lock:
            found = self.disk(zone, name)
            if found["users"]:
                path = found["selfLink"].removeprefix(ROOT)
                raise Refused(
                    400, "resourceInUseByAnotherResource", f"The disk resource '{path}' is already being used"
                )
            target = found["selfLink"].removeprefix(ROOT)
            return self._operation(
                (zone, "delete"), target=target, takes=self.delays.ending, effect=lambda: self._drop_disk(zone, name)
            )

    def make_disk(self, zone: str, name: str) -> str:
        """A data disk of a user, which is in no ledger; its path."""
        with self._lock:
            self._disks[zone, name] = self._resource("disks", zone, name, status="READY", users=[], labels={})
            return f"projects/{PROJECT}/zones/{zone}/disks/{name}"

    def make_regional_disk(self, zones: list[str], name: str) -> str:
        """A data disk of a user with a copy in each of two zones; its path."""
        with self._lock:
            region = zones[0].rpartition("-")[0]
            where = [f"{ROOT}projects/{PROJECT}/zones/{one}" for one in zones]
            made = self._resource("disks", zones[0], name, status="READY", users=[], labels={}, replicaZones=where)
            path = f"projects/{PROJECT}/regions/{region}/disks/{name}"
            del made["zone"]
            self._disks[region, name] = made | {"region": f"{ROOT}projects/{PROJECT}/regions/{region}"}
            return path

    def power_off(self, name: str) -> None:
        """An instance ends by itself."""
        for one in self._instances.values():
            if one["name"] == name:
                one["status"] = "TERMINATED"
                self.host.order(name, Order.STOP)

    def instance(self, zone: str, name: str) -> dict[str, Any]:
        """One instance."""
        return self._one(self._instances, "instances", zone, name)

    def disk(self, scope: str, name: str) -> dict[str, Any]:
        """One disk of a zone or a region."""
        return self._one(self._disks, "disks", scope, name)

    def usage(self, region: str) -> Mapping[str, float]:
        """What is used of each quota in a region."""
        used = dict.fromkeys(self.quotas, 0.0)
        with self._lock:
            for (zone, _), one in self._instances.items():
                kind = self.machine_type(zone, one["machineType"].rpartition("/")[2])
                for metric, number in costs(one, kind).items() if zone.startswith(f"{region}-") else ():
                    used[metric] = used.get(metric, 0.0) + number
        return defaultdict(float, used)

    def visible_instances(self) -> list[dict[str, Any]]:
        """What lists show; new ones come late, if that is set, and addresses too."""
        with self._lock:
            return [self._shown(one) for one in self._instances.values() if self._age(one) >= self.faults.visible_after]

    def visible_disks(self) -> list[dict[str, Any]]:
        """What lists show."""
        with self._lock:
            return [dict(one) for one in self._disks.values() if self._age(one) >= self.faults.visible_after]

    def _refuse(self, zone: str, body: dict[str, Any]) -> dict[str, Any]:
        image = self.image(body["disks"][0]["initializeParams"]["sourceImage"])
        refuse_instance(body, image, zone=zone)
        kind = body["machineType"].rpartition("/")[2]
        try:
            found = self.machine_type(zone, kind)
        except Refused:
            raise invalid(
                "resource.machineType", f"Machine type with name '{kind}' does not exist in zone '{zone}'"
            ) from None
        if found["architecture"] != image["architecture"]:
            raise invalid("resource.disks[0]", "the image's architecture is not the machine type's")
        for nic in body["networkInterfaces"]:
            for path in (nic["network"], *([nic["subnetwork"]] if "subnetwork" in nic else ())):
                self.refuse_unknown(path)
        for one in body.get("guestAccelerators", ()):
            if one["acceleratorType"].rpartition("/")[2] not in self.accelerators.get(zone, ()):
                raise not_found(f"projects/{PROJECT}/{one['acceleratorType']}")
        known = dict(self.tags.values())
        if any(known.get(key) != value for key, value in body.get("params", {}).get("resourceManagerTags", {}).items()):
            raise invalid("resource.params.resourceManagerTags", "the tag does not exist")
        if int(body["disks"][0]["initializeParams"].get("diskSizeGb", 10**6)) < int(image["diskSizeGb"]):
            raise invalid("resource.disks[0].initializeParams.diskSizeGb", "smaller than the image")
        self._refuse_taken(zone, body)
        region = zone.rpartition("-")[0]
        self.refuse_beyond(self.usage(region), costs(body, found), region=region)
        return image

    def _refuse_taken(self, zone: str, body: dict[str, Any]) -> None:
        for kind, taken in (("instances", self._instances), ("disks", self._disks)):
            if (zone, body["name"]) in taken:
                path = f"projects/{PROJECT}/zones/{zone}/{kind}/{body['name']}"
                raise Refused(409, "alreadyExists", f"The resource '{path}' already exists")
        for one in body["disks"][1:]:
            found = self._disk_at(one["source"])
            where = found.get("replicaZones") or [found["zone"]]
            if zone not in [place.rpartition("/")[2] for place in where]:
                raise invalid("resource.disks", f"the disk '{one['source']}' is not in {zone}")
            if found["users"] and found.get("accessMode") != "READ_WRITE_MANY":
                raise Refused(400, "resourceInUseByAnotherResource", f"The disk '{one['source']}' is already in use")

    def _made(self, zone: str, body: dict[str, Any], image: Mapping[str, Any]) -> Operation:
        name = body["name"]
        self._make_disk(zone, body["disks"][0], image, used=True)
        sources = [f"projects/{PROJECT}/zones/{zone}/disks/{name}", *(one["source"] for one in body["disks"][1:])]
        disks = [{**one, "source": path} for one, path in zip(body["disks"], sources, strict=True)]
        for path in sources[1:]:
            self._disk_at(path)["users"].append(name)
        made = {**body, **self._resource("instances", zone, name, status="PROVISIONING", disks=disks)}
        made["networkInterfaces"] = [self._nic(one) for one in body["networkInterfaces"]]
        self._instances[zone, name] = made
        self._enter("instance", zone, name, body.get("labels", {}))
        self._boot(made)

        def effect() -> None:
            if made["status"] == "PROVISIONING":
                made["status"] = "RUNNING"

        target = made["selfLink"].removeprefix(ROOT)
        return self._operation((zone, "insert"), target=target, takes=self.delays.making, effect=effect)

    def _boot(self, made: Mapping[str, Any]) -> None:
        address = made["networkInterfaces"][0].get("networkIP")
        if address is None:
            return  # of IPv6 alone
        attributes = {one["key"]: one["value"] for one in made.get("metadata", {}).get("items", ())}
        user_data = attributes["user-data"].encode() if "user-data" in attributes else None
        guest = Guest(address=IPv4Address(address), user_data=user_data, after=self.delays.making)
        self.host.begin(made["name"], guest)

    def _make_disk(self, zone: str, disk: dict[str, Any], image: Mapping[str, Any], *, used: bool) -> None:
        first = disk["initializeParams"]
        name, labels, size = first["diskName"], first.get("labels", {}), first.get("diskSizeGb", image["diskSizeGb"])
        made = self._resource("disks", zone, name, status="READY", users=[name] if used else [], sizeGb=size)
        self._disks[zone, name] = {**made, "labels": labels}
        self._enter("disk", zone, name, labels)

    def _disk_at(self, path: str) -> dict[str, Any]:
        parts = path.split("/")
        return self.disk(parts[3], parts[5])

    def _drop_disk(self, zone: str, name: str) -> None:
        self._disks.pop((zone, name), None)
        self.ledger.remove("disk", f"{zone}/{name}")

    def _enter(self, kind: str, zone: str, name: str, labels: Mapping[str, str]) -> None:
        self.ledger.add(Resource(kind=kind, id=f"{zone}/{name}", cost=_HOURLY[kind], tags=labels))

    def _nic(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        made = {**asked, "networkIP": f"10.1.{number // 250 % 250}.{number % 250 + 2}", "name": "nic0"}
        if asked["stackType"] != "IPV4_ONLY":
            made["ipv6Address"] = f"fd20::{number:x}"
        if asked["stackType"] == "IPV6_ONLY":
            del made["networkIP"]
        if "accessConfigs" in asked:
            made["accessConfigs"] = [
                {**asked["accessConfigs"][0], "natIP": f"34.9.{number // 250 % 250}.{number % 250}"}
            ]
        return made

    def _shown(self, found: dict[str, Any]) -> dict[str, Any]:
        if self._age(found) >= self.delays.address:
            return dict(found)
        hidden = ("networkIP", "accessConfigs", "ipv6Address")
        nics = [{key: value for key, value in nic.items() if key not in hidden} for nic in found["networkInterfaces"]]
        return {**found, "networkInterfaces": nics}

    def _resource(self, kind: str, zone: str, name: str, **other: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._born[number] = time.monotonic()
        return {
            "kind": f"compute#{kind[:-1]}",
            "id": str(number),
            "name": name,
            "creationTimestamp": "2026-11-24T02:00:00.000-08:00",
            "zone": f"{ROOT}projects/{PROJECT}/zones/{zone}",
            "selfLink": f"{ROOT}projects/{PROJECT}/zones/{zone}/{kind}/{name}",
            **other,
        }

    def _age(self, found: Mapping[str, Any]) -> float:
        return time.monotonic() - self._born[int(found["id"])]

    def _one(self, among: Mapping[tuple[str, str], dict[str, Any]], kind: str, zone: str, name: str) -> dict[str, Any]:
        if (zone, name) not in among:
            raise not_found(f"projects/{PROJECT}/zones/{zone}/{kind}/{name}")
        return among[zone, name]

    def _operation(
        self,
        where: tuple[str, str],
        *,
        target: str,
        takes: float,
        effect: Callable[[], None],
        error: tuple[str, str] | None = None,
    ) -> Operation:
        name, (zone, kind) = f"operation-{next(self._numbers)}", where
        made = Operation(name, zone, kind, target, time.monotonic() + takes, effect, error)
        self.operations[name] = made
        return made
