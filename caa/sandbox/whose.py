"""Which instance is whose: what a sandbox's instance is called, which one a pod has. Pure functions of the records."""

import hashlib
from collections.abc import Iterable

from caa.model.ids import InstanceId, SandboxId, instance_name
from caa.model.sandbox import Phase, Sandbox


def unique_name(sandbox: SandboxId, pod_name: str, *, records: Iterable[Sandbox], limit: int) -> str:
    """The known form, unless another sandbox has it: ids that are not random may share their first characters, and
    one name is one instance."""
    name = instance_name(pod_name, sandbox, limit=limit)
    if all(one.instance_name != name or one.id == sandbox for one in records):
        return name
    tail = "-" + hashlib.sha256(sandbox.encode()).hexdigest()[:10]
    return instance_name(pod_name, sandbox, limit=limit - len(tail)) + tail


def instance_of_pod(name: str, namespace: str, *, records: Iterable[Sandbox]) -> InstanceId | None:
    """The instance of the pod's youngest sandbox that has one; None when there is none."""
    found = [
        one
        for one in records
        if (one.pod.pod_name, one.pod.pod_namespace) == (name, namespace)
        and one.instance
        and one.phase in (Phase.STARTING, Phase.RUNNING)
    ]
    return max(found, key=lambda one: one.created_at).instance if found else None
