"""Five VMs at once through the whole path, from both kinds of shim."""

import asyncio
from typing import Any

import pytest

from caa.testing.shim.kinds import Kind
from caa.testing.shim.pod import Pod

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.needs("runc", "nft", "ip", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq"),
]
PODS = 5


async def test_five_at_once(worker: Any) -> None:
    kinds = [Kind.GO, Kind.RS, Kind.GO, Kind.RS, Kind.GO]
    pods: list[Pod] = await asyncio.gather(*(worker.start(kind, number) for number, kind in enumerate(kinds)))
    domains = await asyncio.to_thread(worker.host.domains)
    assert set(domains) == {f"podvm-pod{number}-{pod.sandbox_id[:8]}" for number, pod in enumerate(pods)}
    assert not [pod.failure for pod in pods if pod.failed.is_set()]
    await asyncio.gather(*(pod.stop() for pod in pods))
    assert not [error for pod in pods for error in pod.stop_errors]
