"""A sandbox: one pod, its pod VM and everything made for it, as the store keeps it."""

from dataclasses import dataclass, field
from enum import StrEnum

from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import IPAddress, Owner, Sizing
from caa.model.network import PodNetwork, Tunnel
from caa.model.volume import Volume


class Phase(StrEnum):
    """Where a sandbox stands in its life; `caa.sandbox.machine` holds the table of what may follow what."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"  # a start failed and was undone; only a stop or a new CreateVM may follow
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What CreateVM said, validated: who the pod is, where its network is, what it asks for.

    `initdata` is the plain TOML text, "" when the pod has none. `image` is "" for the provider's default.
    """

    pod_name: str
    pod_namespace: str
    netns: str
    sizing: Sizing = field(default_factory=Sizing)
    image: str = ""
    initdata: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The record of one sandbox. It is saved before each act, so that its steps can be undone from it alone.

    `reached` is the name of the last step that was begun ("" for none): everything after it was never touched.
    `error` is why the start failed, or why the sandbox was given up.
    `owner` is whose tags the instance has got, for a node that bears another name since; `provider` is the driver that
    made it, "" for one of an earlier version.
    `ca` is the generation of the node's CA that the pod VM trusts; "" is the oldest.
    `volumes` are the disks that were asked for with the pod VM, in the order of their attachment.
    """

    id: SandboxId
    pod: PodSpec
    phase: Phase
    instance_name: str
    token: str
    boot_id: str
    created_at: float
    reached: str = ""
    instance: InstanceId | None = None
    addresses: tuple[IPAddress, ...] = ()
    network: PodNetwork | None = None
    tunnel: Tunnel | None = None
    error: str = ""
    owner: Owner | None = None
    provider: str = ""
    ca: str = ""
    volumes: tuple[Volume, ...] = ()
