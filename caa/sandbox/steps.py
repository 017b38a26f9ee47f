"""The acts of a start, in order, each with its undoing; StopVM is the list backwards.

`up` needs the record as saved before the act and returns it with what is newly known. `down` needs only the record,
succeeds when there is nothing to undo, and may be called any number of times: a crash can come between any two lines.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from caa.errors import CaaError, InvalidRequest, ProviderError, StateError, StepFailed
from caa.model.ids import InstanceId
from caa.model.instance import LaunchRequest, Owner, Sizing
from caa.model.network import Whose
from caa.model.sandbox import Sandbox
from caa.model.volume import checked
from caa.provider.choose import choose
from caa.provider.console import ending
from caa.provider.contract import Provider
from caa.sandbox.ports import AgentLinks, BootData, Ledger, LinkRequest, PodNetworking, VolumeSource

log = structlog.get_logger(__name__)

Console = Callable[[InstanceId], Awaitable[bytes]]

_LAST_WORDS, _LAST_WORDS_MARGIN = 2.0, 0.1  # seconds for a console; the relay refuses half a second before the deadline


class Step(Protocol):
    """One act. `name` is what the record keeps in `reached`, `act` and `remedy` are for people."""

    @property
    def name(self) -> str: ...

    @property
    def act(self) -> str: ...

    @property
    def remedy(self) -> str: ...

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox: ...

    async def down(self, record: Sandbox) -> None: ...


@dataclass(frozen=True, slots=True)
class Own:
    """Say in Kubernetes that the pod VM will be ours, before the cloud is asked; let go of it last of all."""

    ledger: Ledger
    name: str = "own"
    act: str = "record the pod VM in Kubernetes"
    remedy: str = "check the API server and the rights of the service account on peerpods"

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:  # noqa: ARG002
        await self.ledger.own(record)
        return record

    async def down(self, record: Sandbox) -> None:
        await self.ledger.release(record)


@dataclass(frozen=True, slots=True)
class FindVolumes:
    """Learn which disks the pod needs, before it is paid for. A pod never starts without one of them."""

    source: VolumeSource
    provider: Provider
    name: str = "volumes"
    act: str = "find the pod's volumes"
    remedy: str = "see what the pod's persistent volume claims say, and the CSI driver's log on this node"

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:  # noqa: ARG002
        volumes = checked(await self.source.of(record.id, record.pod))
        if volumes and not self.provider.capabilities.volumes:
            raise InvalidRequest(
                f"the pod has {len(volumes)} volumes that are disks of the cloud, and this provider attaches none: "
                "take another provider (CLOUD_PROVIDER), or another storage class for the claims"
            )
        return replace(record, volumes=volumes)

    async def down(self, record: Sandbox) -> None:
        """Nothing of its own to undo: what `launch` attaches is let go with the pod VM, and stays."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Make the pod VM. A pod that asks for nothing gets the driver's own default instance type."""

    provider: Provider
    boot_data: BootData
    owner: Owner
    name: str = "launch"
    act: str = "create the pod VM"
    remedy: str = (
        "see the cloud's answer; CLOUD_CONFIG_VERIFY=true proves credentials, image, network and quota at the start"
    )

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:  # noqa: ARG002
        if record.pod.image:
            log.info(f"Choosing {record.pod.image}")  # operators' tests look for these words (user-pains.md 5.0)
        boot = await self.boot_data.render(record)
        request = LaunchRequest(
            name=record.instance_name,
            sandbox=record.id,
            owner=record.owner or self.owner,
            token=record.token,
            user_data=boot.user_data,
            instance_type=await self._instance_type(record.pod.sizing),
            sizing=record.pod.sizing,
            image=record.pod.image,
            namespace=record.pod.pod_namespace,
            pod=record.pod.pod_name,
            initdata=boot.initdata,
            volumes=tuple(one.disk for one in record.volumes),
        )
        instance = await self.provider.create(request)
        if not instance.id or not instance.addresses:
            raise ProviderError(f"the driver made {record.instance_name} without an id or an address")
        return replace(record, instance=instance.id, addresses=instance.addresses)

    async def _instance_type(self, asked: Sizing) -> str:
        """ "" leaves it to the driver: its default type, or the numbers where it has no types."""
        if not self.provider.capabilities.sized_by_type or asked == Sizing(gpu_model=asked.gpu_model):
            return ""
        types = await self.provider.instance_types()
        return choose(asked, types, default=self.provider.capabilities.default_type or (types[0].name if types else ""))

    async def down(self, record: Sandbox) -> None:
        """Without an id the cloud's answer was lost, or never came: what carries our name is ours."""
        if record.instance is not None:
            await self.provider.delete(record.instance)
            return
        for instance in await self.provider.list_owned(record.owner or self.owner):
            if instance.name == record.instance_name or instance.sandbox == record.id:
                await self.provider.delete(instance.id)


@dataclass(frozen=True, slots=True)
class Note:
    """Write the instance's id beside the pod in Kubernetes; what `own` made is released with it."""

    ledger: Ledger
    name: str = "note"
    act: str = "record the instance id in Kubernetes"
    remedy: str = "check the API server and the rights of the service account on peerpods"

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:  # noqa: ARG002
        await self.ledger.note(record)
        return record

    async def down(self, record: Sandbox) -> None:
        """Nothing of its own to undo."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Build the worker's half of the pod network."""

    networking: PodNetworking
    name: str = "connect"
    act: str = "connect the pod network"
    remedy: str = "check the kernel's vxlan support and the route from this node to the pod VM"

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:  # noqa: ARG002
        if record.network is None or record.tunnel is None or not record.addresses:
            raise StateError(f"the record of {record.id} lacks its network, tunnel or address")
        pod = record.pod
        whose = Whose(sandbox=record.id, pod_name=pod.pod_name, pod_namespace=pod.pod_namespace)
        await self.networking.connect(
            pod.netns, network=record.network, tunnel=record.tunnel, peer=record.addresses[0], whose=whose
        )
        return record

    async def down(self, record: Sandbox) -> None:
        if record.tunnel is not None:
            await self.networking.disconnect(record.pod.netns, record.tunnel)


@dataclass(frozen=True, slots=True)
class Link:
    """Have the relay reach the agent and listen where the shim will dial."""

    links: AgentLinks
    console: Console | None = None
    name: str = "link"
    act: str = "reach the agent in the pod VM"
    remedy: str = "see the pod VM's console; the forwarder's port must be open from this node (PROXY_TIMEOUT bounds it)"

    async def up(self, record: Sandbox, deadline: float | None) -> Sandbox:
        request = LinkRequest(
            sandbox=record.id,
            addresses=record.addresses,
            server_name=record.instance_name,
            ca=record.ca,
            volumes=record.volumes,
        )
        try:
            await self.links.open(request, deadline)
        except CaaError as error:
            said = await self._last_words(record, deadline)
            if not said:
                raise
            raise StepFailed(f"{error}{said}", code=error.code, retryable=error.retryable) from error
        return record

    async def _last_words(self, record: Sandbox, deadline: float | None) -> str:
        """How the pod VM's console ends, if it can be had in the time that is left: whoever reads the error cannot
        look any more, for the pod VM is removed."""
        if self.console is None or record.instance is None:
            return ""
        now = asyncio.get_running_loop().time()
        end = min(now + _LAST_WORDS, math.inf if deadline is None else deadline - _LAST_WORDS_MARGIN)
        try:
            async with asyncio.timeout_at(end):
                return ending(await self.console(record.instance))
        except Exception as error:  # a cloud without consoles, or one that is slow, must not hide the reason
            log.debug("the console cannot be read", error=f"{type(error).__name__}: {error}")
            return ""

    async def down(self, record: Sandbox) -> None:
        await self.links.close(record.id, record.error)


def position(steps: Sequence[Step], reached: str) -> int:
    """How many steps were begun when `reached` was the last one; all of them for a name that is not known."""
    names = [step.name for step in steps]
    if not reached:
        return 0
    return names.index(reached) + 1 if reached in names else len(names)
