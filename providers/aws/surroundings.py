"""What is asked once and kept: the node's own facts, the catalogue, images, subnets, the launch template."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from caa.config.load import Settings
from caa.errors import InvalidRequest, Misconfigured
from caa.model.instance import InstanceType
from caa.provider.catalogue import Catalogue, Shelf
from caa.provider.clock import Clock
from caa.provider.kept import KEPT, Kept
from caa.provider.rows import CATALOGUE_DIR, CATALOGUE_TTL, FALLBACK_TYPES, FALLBACK_ZONES
from caa.provider.threads import Threads
from providers.aws import metadata, shapes
from providers.aws import settings as rows
from providers.aws.client import Access, Ec2
from providers.aws.translate import filters

_BATCH = 100  # instance types a call; the API's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long to wait for the cloud and how often to look, in seconds."""

    poll: float = 1.0
    find: float = 0.1  # creates within it look for an older instance of theirs together
    address: float = 120.0
    running: float = 180.0
    attach: float = 60.0
    gone: float = 300.0
    undo: float = 120.0
    looks: int = 10  # for what a lost answer may have made
    read_timeout: float = 30.0


class Node:
    """What the settings say about access and network, completed from the node's instance metadata."""

    def __init__(self, values: Settings, threads: Threads, *, waits: Waits) -> None:
        self._values = values
        self._threads = threads
        self._waits = waits
        self._asking: asyncio.Task[dict[str, str]] | None = None

    async def access(self) -> Access:
        """How to reach AWS."""
        values = self._values
        static = bool(values[rows.ACCESS_KEY_ID] and values[rows.SECRET_KEY])
        return Access(
            region=values[rows.REGION] or await self._fact(metadata.REGION),
            key_id=values[rows.ACCESS_KEY_ID] if static else "",
            secret=values[rows.SECRET_KEY] if static else "",
            token=values[rows.SESSION_TOKEN] if static else "",
            profile=values[rows.PROFILE],
            ec2_endpoint=values[rows.EC2_ENDPOINT],
            sts_endpoint=values[rows.STS_ENDPOINT],
            quotas_endpoint=values[rows.QUOTAS_ENDPOINT],
            read_timeout=self._waits.read_timeout,
        )

    async def subnets(self, template: shapes.Template) -> list[str]:
        """The subnets to try, in order. Raises `Misconfigured` when there is none."""
        first = self._values[rows.SUBNET] or template.subnet or await self._fact(metadata.SUBNET)
        if not first:
            raise Misconfigured("AWS_SUBNET_ID is not set, and the node's instance metadata does not tell: set it")
        return list(dict.fromkeys([first, *self._values[FALLBACK_ZONES]]))

    async def groups(self, template: shapes.Template) -> list[str]:
        """The security groups. Raises `Misconfigured` when there is none."""
        found = self._values[rows.SECURITY_GROUPS] or template.groups
        found = found or tuple((await self._fact(metadata.GROUPS)).split())
        if not found:
            raise Misconfigured("AWS_SG_IDS is not set, and the node's instance metadata does not tell: set it")
        return list(found)

    async def whereabouts(self) -> shapes.Whereabouts | None:
        """Address and security groups of the node; None off EC2, or where nobody tells."""
        wanted = [metadata.ADDRESS, metadata.GROUPS]
        found = await metadata.facts(self._values[rows.METADATA_ENDPOINT], wanted, threads=self._threads)
        return shapes.whereabouts(found.get(metadata.ADDRESS, ""), found.get(metadata.GROUPS, ""))

    async def _fact(self, name: str) -> str:
        if self._asking is None or (self._asking.done() and not self._told()):
            self._asking = asyncio.ensure_future(self._facts())
        return (await asyncio.shield(self._asking)).get(name, "")

    def _told(self) -> bool:
        task = self._asking
        return task is not None and not task.cancelled() and task.exception() is None and bool(task.result())

    async def _facts(self) -> dict[str, str]:
        values = self._values
        settings = {
            metadata.REGION: values[rows.REGION],
            metadata.SUBNET: values[rows.SUBNET],
            metadata.GROUPS: values[rows.SECURITY_GROUPS],
        }
        missing = [name for name, value in settings.items() if not value]
        return await metadata.facts(values[rows.METADATA_ENDPOINT], missing, threads=self._threads)


class Surroundings:
    """What EC2 knows about images, subnets, types and the template."""

    def __init__(self, ec2: Ec2, node: Node, *, values: Settings, clock: Clock) -> None:
        self._ec2 = ec2
        self.node = node
        self._values = values
        self._clock = clock
        self._images = Kept(self._fetch_image, clock)
        self._templates = Kept(self._fetch_template, clock)
        self._subnets: dict[str, tuple[float, shapes.Subnet]] = {}
        names = sorted(self.wanted_types())
        where = f"{values[rows.REGION]} {values[rows.EC2_ENDPOINT]}".strip()
        shelf = Shelf(
            path=values[CATALOGUE_DIR] / "aws.json",
            ttl=values[CATALOGUE_TTL],
            subject=f"aws {where} {' '.join(names)}",
        )
        self.catalogue = Catalogue(lambda: self.fetch_types(names), shelf, clock=clock)

    def wanted_types(self) -> set[str]:
        """Every type that settings name."""
        values = self._values
        return {values[rows.INSTANCE_TYPE], *values[rows.INSTANCE_TYPES], *values[FALLBACK_TYPES]}

    async def fetch_types(self, names: Sequence[str]) -> Sequence[InstanceType]:
        """The types that exist in this region, with their zones; unknown ones are left out, `check` names them."""
        found: list[InstanceType] = []
        for at in range(0, len(names), _BATCH):
            wanted = [{"Name": "instance-type", "Values": list(names[at : at + _BATCH])}]
            kinds, zones = await asyncio.gather(
                self._ec2.call("describe_instance_types", Filters=wanted),
                self._ec2.call("describe_instance_type_offerings", LocationType="availability-zone", Filters=wanted),
            )
            by_type: dict[str, list[str]] = {}
            for one in zones.get("InstanceTypeOfferings") or ():
                by_type.setdefault(str(one.get("InstanceType")), []).append(str(one.get("Location")))
            lines = kinds.get("InstanceTypes") or ()
            found += [shapes.instance_type(one, by_type.get(str(one["InstanceType"]), ())) for one in lines]
        return found

    async def image(self, name: str) -> shapes.Image:
        """The image. Raises `InvalidRequest` with EC2's own code when there is none."""
        return await self._images.get(name)

    async def subnets(self, names: Iterable[str]) -> Mapping[str, shapes.Subnet]:
        """The subnets by id; of their free addresses this says only how many there were a while ago."""
        now = self._clock.now()
        wanted = list(dict.fromkeys(names))
        if any(name not in self._subnets or now - self._subnets[name][0] > KEPT for name in wanted):
            found = (await self._ec2.call("describe_subnets", SubnetIds=wanted)).get("Subnets") or ()
            self._subnets |= {str(one["SubnetId"]): (now, shapes.subnet(one)) for one in found}
        if missing := [name for name in wanted if name not in self._subnets]:
            raise Misconfigured(f"the subnets {', '.join(missing)} do not exist: see AWS_SUBNET_ID and FALLBACK_ZONES")
        return {name: self._subnets[name][1] for name in wanted}

    async def template(self) -> shapes.Template:
        """What the launch template says; nothing without one."""
        if not self._values[rows.USE_TEMPLATE]:
            return shapes.Template()
        return await self._templates.get(self._values[rows.TEMPLATE_NAME])

    async def volume_zones(self, volumes: Sequence[str]) -> Mapping[str, str]:
        """The zone of each volume. Raises `InvalidRequest` when one does not exist."""
        if not volumes:
            return {}
        found = (await self._ec2.call("describe_volumes", VolumeIds=list(volumes))).get("Volumes") or ()
        by_name = {str(one["VolumeId"]): one for one in found}
        if missing := [name for name in volumes if name not in by_name]:
            raise InvalidRequest(f"the volume {missing[0]} of the pod is missing: see the claim's PersistentVolume")
        return {name: str(by_name[name].get("AvailabilityZone", "")) for name in volumes}

    async def _fetch_image(self, name: str) -> shapes.Image:
        found = (await self._ec2.call("describe_images", ImageIds=[name])).get("Images") or ()
        if not found:
            raise InvalidRequest(f"InvalidAMIID.NotFound: the image {name} is not there; set PODVM_AMI_ID")
        return shapes.image(found[0])

    async def _fetch_template(self, name: str) -> shapes.Template:
        reply = await self._ec2.call(
            "describe_launch_template_versions", LaunchTemplateName=name, Versions=["$Default"]
        )
        versions = reply.get("LaunchTemplateVersions") or ()
        if not versions:
            raise Misconfigured(f"the launch template {name} has no version: see PODVM_LAUNCHTEMPLATE_NAME")
        return shapes.template(versions[0].get("LaunchTemplateData") or {})


def owned_instances(tags: Mapping[str, str]) -> list[dict[str, object]]:
    """Filters for everything of an owner that is not gone for good."""
    states = ["pending", "running", "stopping", "stopped", "shutting-down"]
    return filters(tags, instance_state_name=states)
