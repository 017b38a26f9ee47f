"""What a driver is. Drivers import this package, `caa.model`, `caa.config`, `caa.errors`, and nothing else of ours."""

from collections.abc import Sequence
from typing import Protocol

from caa.model.ids import InstanceId
from caa.model.instance import Capabilities, Finding, Instance, InstanceState, InstanceType, LaunchRequest, Owner

__all__ = [
    "Capabilities",
    "Finding",
    "Instance",
    "InstanceState",
    "InstanceType",
    "LaunchRequest",
    "Owner",
    "Provider",
]


class Provider(Protocol):
    """One cloud. Every method raises only `ProviderError` subclasses, and may be cancelled at any await.

    `caa.testing.provider_contract` is the executable form of what the docstrings promise.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def check(self) -> Sequence[Finding]:
        """Prove credentials, image, network and quota; say what is wrong and what to do. Makes nothing."""

    async def instance_types(self) -> Sequence[InstanceType]:
        """The types an operator allows, with their sizes. When `capabilities.sized_by_type` is false, the most that one
        instance may have, or nothing."""

    async def create(self, request: LaunchRequest) -> Instance:
        """Make the instance, all or nothing: on an error nothing of it is left. The same name twice is the same
        instance. Returns when it has an address; `addresses` is never empty."""

    async def delete(self, instance: InstanceId) -> None:
        """Return when the instance and everything made for it is gone; gone already is success."""

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """Everything that carries the owner's tags, half-made things included."""

    async def state(self, instance: InstanceId) -> InstanceState:
        """Whether it still runs, by one cheap read. Asked while the link to a pod VM is down.

        STOPPED and ABSENT end a pod, so they are told only where the cloud says so; UNKNOWN where it has no way to
        tell. That it could not be asked, or that we lack the right to, is an error.
        """

    async def console(self, instance: InstanceId) -> bytes:
        """The serial log so far; `NotSupported` where `capabilities.console` is false."""

    async def close(self) -> None:
        """Let go of connections and threads; instances live on."""
