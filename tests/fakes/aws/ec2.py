"""A strict EC2 (and the STS that goes with it): moto's state behind the rules, delays and faults that it lacks."""

import base64
import contextlib
import copy
import ipaddress
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto.core.request import normalize_request
from moto.ec2.models import core, ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_dict_attribute_mapping
from werkzeug.exceptions import HTTPException

from tests.fakes.aws import answers, model, quotas, rules
from tests.fakes.aws.answers import CODES, Known, vcpus
from tests.fakes.aws.disks import Disks
from tests.fakes.aws.identity import Identity
from tests.fakes.aws.model import Refused
from tests.fakes.aws.places import Places, known_to_moto
from tests.fakes.aws.policy import Policy
from tests.fakes.aws.quotas import Quotas
from tests.fakes.faults import Fault, Faults
from tests.fakes.ledger import Ledger, Resource
from tests.fakes.machines import Guest, Host, Nowhere, Order
from tests.fakes.wire import Reply, Request

_ACCOUNTS = itertools.count(int.from_bytes(os.urandom(4), "big"))
_PUBLIC, _SECOND = itertools.count(1), itertools.count()
_ORDERS = {
    "StartInstances": Order.START,
    "StopInstances": Order.STOP,
    "RebootInstances": Order.REBOOT,
    "TerminateInstances": Order.END,
}
_CONSOLE = 65536
core.TaggedEC2Resource.get_tags = lambda self: [  # moto's looks through the tags of all resources
    {"resource_id": self.id, "key": key, "value": value, "resource_type": ""}
    for key, value in self.ec2_backend.tags.get(self.id, {}).items()
]
elastic_ip_addresses.random_ip = lambda: "198.51.{}.{}".format(*divmod(next(_PUBLIC) % 65000, 256))  # no loopback
elastic_network_interfaces.random_private_ip = lambda cidr: str(  # moto's may be in use already
    ipaddress.IPv4Network(cidr).broadcast_address - 1 - next(_SECOND) % 100
)
filter_dict_attribute_mapping.setdefault("client-token", "client_token")  # a filter of EC2's that moto lacks

REFUSALS = {
    Fault.THROTTLED: Refused("RequestLimitExceeded", "Request limit exceeded.", status=503),
    Fault.UNAUTHORISED: Refused(
        "UnauthorizedOperation", "You are not authorized to perform this operation.", status=403
    ),
    Fault.CAPACITY: Refused(
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient capacity in the Availability Zone you requested.",
        status=500,
    ),
    Fault.QUOTA: Refused("VcpuLimitExceeded", "You have requested more vCPU capacity than your current limit allows."),
}

_QUOTA_REFUSALS = {
    Fault.THROTTLED: ("TooManyRequestsException", "Rate exceeded"),
    Fault.UNAUTHORISED: ("AccessDeniedException", "not authorized to perform: servicequotas:ListServiceQuotas"),
    Fault.CAPACITY: ("ServiceException", "Something went wrong"),
    Fault.QUOTA: ("ServiceException", "Something went wrong"),
}


@dataclass
class Delays:
    """Seconds between the states of an instance; `address` until a new one has any address."""

    pending: float = 0.0
    ending: float = 0.0
    address: float = 0.0


class Ec2:
    """`Service`. Each object is an account of its own, with one VPC, three subnets, one security group."""

    def __init__(self, *, region: str = "eu-west-1", policy: Policy | None = None) -> None:
        self.faults, self.ledger, self.delays = Faults(), Ledger(), Delays()
        self.region, self.policy = region, policy
        self.account = f"{next(_ACCOUNTS) % 10**12:012d}"
        self.keys: set[str] | None = None  # access keys that are accepted; None is all
        self.identity, self.quotas, self.places = Identity(self.account), Quotas(), Places()
        self.instances: dict[str, Known] = {}
        self._tokens: dict[str, tuple[str, str, bytes]] = {}
        self._lock = threading.RLock()
        self.backend = ec2_backends[self.account][region]
        self.disks = Disks(self.backend, self._state_of)
        self._given: set[str] = set()
        self.empty: set[str] = set()  # calls whose answers name no instance
        self.mappings: dict[str, list[tuple[str, str]]] = {}  # disks of an image: (device, "ebs" or an instance store)
        self.on_launch: Callable[[str], None] | None = None  # called with the id of every new instance
        self.began, self.ended = threading.Event(), threading.Event()  # set by the first instance, and by its end
        self.host: Host = Nowhere()
        self._furnish()

    # --- Service

    def call_of(self, request: Request) -> str:
        return quotas.call_of(request) or request.form.get("Action", "")

    def refusal(self, fault: Fault, request: Request) -> Reply:
        if quotas.call_of(request):
            return quotas.refused(*_QUOTA_REFUSALS[fault])
        after = {"Retry-After": f"{self.faults.retry_after:g}"} if self.faults.retry_after else {}
        return REFUSALS[fault].reply(after if fault is Fault.THROTTLED else None)

    def answer(self, request: Request) -> Reply:
        form = request.form
        action = form.get("Action", "")
        try:
            self._refuse_caller(request)
            if action in ("GetCallerIdentity", "AssumeRoleWithWebIdentity"):
                return self.identity.sts(action, form)
            if named := quotas.call_of(request):
                denied = self._denied(named, {}, service="servicequotas")
                return quotas.refused("AccessDeniedException", denied) if denied else self.quotas.answer(request)
            model.check(action, form)
            if denied := self._denied(action, form):
                raise Refused("UnauthorizedOperation", denied, status=403)
            with self._lock:
                self._advance()
                reply = self._do(action, form, request)
                return answers.emptied(reply) if action in self.empty else reply
        except Refused as refused:
            return refused.reply()

    # --- for tests

    def last_launch(self) -> Mapping[str, str]:
        """The form of the last RunInstances that made an instance."""
        return list(self.instances.values())[-1].form

    def make_volume(self, zone: str) -> str:
        """A data volume that was there before; it never counts as left behind."""
        volume = self.backend.create_volume(size=1, zone_name=zone)
        self._given.add(volume.id)
        return str(volume.id)

    def make_image(self, name: str, **other: Any) -> str:
        """An image that boots by UEFI, with a root disk of 8 GiB at /dev/sda1; `other` are attributes of moto's."""
        one = copy.copy(next(iter(self.backend.amis.values())))
        for key, value in {"boot_mode": "uefi", "root_device_name": "/dev/sda1", **other, "id": name}.items():
            setattr(one, key, value)
        self.backend.amis[name] = one
        return name

    def warm_up(self) -> None:
        """moto reads its data with the first call, which takes longer than a test's read time-out."""
        kinds = "DescribeInstanceTypes&InstanceType.1=m6a.large"
        for action in (kinds, "DescribeImages&ImageId.1=" + self.ami):
            body = f"Action={action}&Version=2016-11-15".encode()
            headers = {"authorization": "Credential=x/", "content-type": "application/x-www-form-urlencoded"}
            self._moto(Request(method="POST", target="/", headers=headers, body=body))

    def kill(self, instance: str) -> None:
        """The instance ends by itself."""
        with self._lock:
            self.backend.terminate_instances([instance])
            self.host.order(instance, Order.END)
            self._sync()

    def stop(self, instance: str) -> None:
        """The instance stops by itself, and costs money."""
        with self._lock:
            self.backend.stop_instances([instance])
            self.host.order(instance, Order.STOP)

    def settle(self) -> Ledger:
        """Bring states and ledger to what they are by now."""
        with self._lock:
            self._sync()
            return self.ledger

    # --- inside

    def _furnish(self) -> None:
        vpc = self.backend.create_vpc("10.0.0.0/16")
        zones = [f"{self.region}{letter}" for letter in "abc"]
        subnets = [
            self.backend.create_subnet(vpc.id, f"10.0.{n}.0/24", availability_zone=zone) for n, zone in enumerate(zones)
        ]
        self.subnets = [str(one.id) for one in subnets]
        group = self.backend.create_security_group("podvm", "pod VMs", vpc_id=vpc.id)
        self.group = str(group.id)
        for protocol, port in (("tcp", 15150), ("udp", 4789)):
            self.backend.authorize_security_group_ingress(
                self.group, protocol, str(port), str(port), [{"CidrIp": "10.0.0.0/16"}]
            )
        self.ami = self.make_image("ami-00000000000000001")
        self.ami_bios = self.make_image("ami-00000000000000002", boot_mode=None)
        self.ami_arm = self.make_image("ami-00000000000000003", architecture="arm64", root_device_name="/dev/xvda")

    def _refuse_caller(self, request: Request) -> None:
        found = re.search(r"Credential=([^/]+)/", request.headers.get("authorization", ""))
        if request.form.get("Action") != "AssumeRoleWithWebIdentity" and not found:
            raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token", status=403)
        if found and (self.identity.is_expired(found[1]) or (self.keys is not None and found[1] not in self.keys)):
            raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", status=401)

    def _denied(self, action: str, form: Mapping[str, str], *, service: str = "ec2") -> str:
        """What is said to somebody without the right; "" to somebody with it."""
        if self.policy is None:
            return ""
        missing = self.policy.missing(action, form, self._tags_of, service=service)
        text = f"You are not authorized to perform this operation. Missing: {', '.join(missing)}"
        return text if missing else ""

    def _tags_of(self, name: str) -> Mapping[str, str] | None:
        """The tags of a resource; an association has those of its address."""
        address = next((one.allocation_id for one in self.backend.addresses if one.association_id == name), name)
        found = self.backend.tags.get(address)
        return None if found is None else dict(found)

    def _state_of(self, instance: str) -> str:
        found = [one.state for one in self.backend.all_instances() if one.id == instance]
        return str(found[0]) if found else ""

    def _do(self, action: str, form: Mapping[str, str], request: Request) -> Reply:
        if action == "RunInstances":
            return self._run(form, request)
        if action == "AttachVolume":
            self.disks.refuse(form)
        if action == "GetConsoleOutput":
            rules.refuse_latest(self.backend, form)
        if form.get("DryRun") == "true":
            rules.refuse_absent(self.backend, form)
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        before = {one.id for one in self.backend.all_instances() if one.state == "terminated"}
        held = self.disks.held_by(set(form.values())) if action == "TerminateInstances" else {}
        reply = self._moto(request)
        if action == "AttachVolume" and reply.status == 200:
            self.disks.attached(form["VolumeId"])
        if action == "TerminateInstances" and reply.status == 200:
            self.disks.hold(held)
            self._end({one.id for one in self.backend.all_instances() if one.state == "terminated"} - before)
            reply = Reply(body=reply.body.replace(b"<name>terminated</name>", b"<name>shutting-down</name>"))
        if action in _ORDERS and reply.status == 200:
            for name in (value for key, value in form.items() if key.startswith("InstanceId.")):
                self.host.order(name, _ORDERS[action])
        if action == "GetConsoleOutput" and (printed := self.host.console(form["InstanceId"])[-_CONSOLE:]):
            output = f"<output>{base64.b64encode(printed).decode()}</output>".encode()
            reply = Reply(body=re.sub(rb"<output>[^<]*</output>", output, reply.body), headers=reply.headers)
        self._sync()
        return self._edited(reply) if action in ("DescribeImages", "DescribeInstances", "DescribeVolumes") else reply

    def _run(self, form: Mapping[str, str], request: Request) -> Reply:
        token, digest = form.get("ClientToken", ""), rules.digest(form)
        if kept := self._tokens.get(token):
            if kept[0] != digest:
                raise Refused("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent.")
            return self._edited(Reply(body=kept[2]))
        rules.refuse_launch(self.backend, form)
        self.places.refuse(form)
        kind, zone = form["InstanceType"], rules.zone_of(self.backend, form)
        if form.get("DryRun") == "true":
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        self._refuse_quota(kind, spot=form.get("InstanceMarketOptions.MarketType") == "spot")
        if not self.faults.has_room(kind, zone):
            raise REFUSALS[Fault.CAPACITY]
        reply = self._moto(replace(request, body=known_to_moto(request.body)))
        if reply.status != 200:
            return reply
        name = re.search(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", reply.body)
        assert name
        if token:
            self._tokens[token] = (digest, name[1].decode(), reply.body)
        self._began(name[1].decode(), form)
        if self.on_launch:
            self.on_launch(name[1].decode())
        self._sync()
        return self._edited(reply)

    def _refuse_quota(self, kind: str, *, spot: bool) -> None:
        living = [one for one in self.backend.all_instances() if one.state in ("pending", "running")]
        mine = [one.instance_type for one in living if (one.lifecycle == "spot") is spot]
        if sum(map(vcpus, [kind, *mine])) > self.quotas.values[quotas.SPOT if spot else quotas.STANDARD]:
            raise REFUSALS[Fault.QUOTA]

    def _began(self, name: str, form: Mapping[str, str]) -> None:
        cpu = {key.removeprefix("CpuOptions."): value for key, value in form.items() if key.startswith("CpuOptions.")}
        self.instances[name] = Known(born=time.monotonic(), cpu=cpu, form=dict(form))
        instance = self.backend.get_instance(name)
        tags = _tags_of(form, "network-interface")
        for nic in instance.nics.values():
            nic.delete_on_termination = form.get("NetworkInterface.1.DeleteOnTermination", "true") == "true"
            if tags:
                nic.add_tags(tags)
        user_data = base64.b64decode(form["UserData"]) if form.get("UserData") else None
        guest = Guest(address=IPv4Address(instance.private_ip), user_data=user_data, after=self.delays.pending)
        self.host.begin(name, guest)
        self.began.set()
        self._advance()

    def _end(self, names: set[str]) -> None:
        self.ended.set()
        for name in names:
            self.instances[name].ends = time.monotonic() + self.delays.ending
        self._advance()

    def _advance(self) -> None:
        """Bring every instance to the state that its age gives it."""
        now = time.monotonic()
        for one in self.backend.all_instances():
            known = self.instances.get(one.id)
            if known is None:
                continue
            if known.ends is not None:
                state = "terminated" if now >= known.ends else "shutting-down"
            elif one.state in ("terminated", "stopped"):
                state = one.state
            else:
                state = "running" if now - known.born >= self.delays.pending else "pending"
            one._state.name, one._state.code = state, CODES[state]
        for address in self.backend.addresses:
            if address.eni is None:
                continue
            address.instance = address.eni.instance or address.instance
            ended = address.instance is None or address.instance.state == "terminated"
            if address.eni.id not in self.backend.enis and ended:
                address.eni = address.instance = address.association_id = None

    def _sync(self) -> None:
        """Make the ledger what moto holds."""
        self._advance()
        found = [
            *(_resource("instance", one, vcpus(one.instance_type) * 0.048) for one in self.backend.all_instances()
              if one.state != "terminated"),
            *(_resource("volume", one, one.size * 0.00012) for one in self.backend.volumes.values()),
            *(_resource("network interface", one, 0.0) for one in self.backend.enis.values()),
            *(_resource("address", one, 0.005) for one in self.backend.addresses),
        ]  # fmt: skip
        alive = {(one.kind, one.id): one for one in found if one.id not in self._given}
        for one in self.ledger.alive():
            if (one.kind, one.id) not in alive:
                self.ledger.remove(one.kind, one.id)
        for one in alive.values():
            self.ledger.add(one)

    def _edited(self, reply: Reply) -> Reply:
        root = answers.root_of(reply)
        if root.tag.endswith("DescribeVolumesResponse"):
            self.disks.edit(root)
        answers.edit_images(root, self.mappings)
        unseen, no_address = self.faults.visible_after, self.delays.address
        answers.edit_instances(root, self.instances, self.backend, unseen=unseen, no_address=no_address)
        return answers.edited(root, reply.status)

    def _moto(self, request: Request) -> Reply:
        headers = HTTPHeaders()
        host = f"ec2.{self.region}.amazonaws.com"
        for key, value in {**request.headers, "host": host, "x-moto-account-id": self.account}.items():
            headers[key] = value
        prepared = AWSPreparedRequest("POST", f"https://{host}/", headers, request.body, False)
        try:
            status, out, body = EC2Response.dispatch(normalize_request(prepared), prepared.url, headers)
        except HTTPException as error:
            status, out, body = error.code or 500, dict(error.get_headers()), error.get_body()
        encoded = body.encode() if isinstance(body, str) else body
        return Reply(status=int(status), body=encoded, headers={"Content-Type": "text/xml", **_plain(out)})


def _resource(kind: str, one: Any, cost: float) -> Resource:
    tags: dict[str, str] = {}
    with contextlib.suppress(AttributeError):
        tags = {str(tag["key"]): str(tag["value"]) for tag in one.get_tags()}
    return Resource(kind=kind, id=str(one.id), cost=cost, tags=tags)


def _tags_of(form: Mapping[str, str], kind: str) -> dict[str, str]:
    for number in range(1, 10):
        if form.get(f"TagSpecification.{number}.ResourceType") == kind:
            prefix = f"TagSpecification.{number}.Tag."
            keys = {key.removeprefix(prefix).split(".")[0] for key in form if key.startswith(prefix)}
            return {form[f"{prefix}{n}.Key"]: form.get(f"{prefix}{n}.Value", "") for n in keys}
    return {}


def _plain(headers: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in headers.items() if key.lower() not in ("content-length", "status")}
