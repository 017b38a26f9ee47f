"""Records of pods that another provider runs: this one must not be asked about their pod VMs. Refused, or given up.

Every driver answers that an id it has never seen is deleted already, so with the wrong one a stop would lose the VM.
"""

from collections.abc import Sequence

import structlog

from caa.config.identity import CLOUD_PROVIDER, FORGET_PROVIDER
from caa.errors import ConfigError
from caa.model.sandbox import Sandbox
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

_SHOWN = 5  # pods in one message


def strangers(records: Sequence[Sandbox], provider: str) -> Sequence[Sandbox]:
    """The sandboxes for which another provider may have made something."""
    return [one for one in records if one.reached and one.provider not in ("", provider)]


def refusal(found: Sequence[Sandbox], provider: str) -> str:
    """Which setting is wrong, what exists, what to do."""
    others = sorted({one.provider for one in found})
    pods = [f"{one.pod.pod_namespace}/{one.pod.pod_name} ({one.instance or one.instance_name})" for one in found]
    shown = ", ".join(pods[:_SHOWN]) + (f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else "")
    return (
        f"{CLOUD_PROVIDER.label} is {provider!r}, but {len(found)} pods of this node have pod VMs of "
        f"{' and '.join(others)}: {shown}. They go on running. Set it back to {others[0]} until they are gone, then "
        f"change it; {FORGET_PROVIDER.label}={others[0]} gives them up and leaves their pod VMs to you"
    )


async def settle(service: SandboxService, provider: str, *, forgotten: str) -> None:
    """Give up what `forgotten` runs; raises `ConfigError` when there is more."""
    found = strangers(service.records(), provider)
    others = [one for one in found if one.provider != forgotten]
    if others:
        raise ConfigError(refusal(others, provider))
    for one in found:
        log.error(
            "gives up a pod of another provider; its pod VM is left to you",
            sandbox=one.id,
            pod=f"{one.pod.pod_namespace}/{one.pod.pod_name}",
            provider=one.provider,
            instance=one.instance_name,
            id=one.instance,
        )
        await service.forget_instance(one.id)
