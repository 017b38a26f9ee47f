"""A pod VM whose agent cannot be reached: the end of its console is in the error, if it can be had in time."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from caa.errors import CaaError, Code, NotSupported, StepFailed, Unavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.sandbox.ports import LinkRequest, LinkState
from caa.sandbox.steps import Console, Link

RECORD = Sandbox(
    id=SandboxId("a" * 64),
    pod=PodSpec(pod_name="web", pod_namespace="default", netns="/run/netns/web"),
    phase=Phase.STARTING,
    instance_name="podvm-web-aaaaaaaa",
    token="t",
    boot_id="b",
    created_at=1.0,
    instance=InstanceId("i-1"),
    addresses=(ip_address("192.0.2.7"),),
)


class NoAgent:
    """Links to a pod VM that does not answer."""

    def socket_path(self, sandbox: SandboxId) -> str:
        return f"/run/{sandbox}"

    async def open(self, link: LinkRequest, deadline: float | None) -> None:
        raise Unavailable(f"{link.server_name} was not reached")

    async def close(self, sandbox: SandboxId, why: str = "") -> None:
        pass

    async def list(self) -> Sequence[LinkState]:
        return []


async def _says(console: Console | None, *, within: float | None = None) -> CaaError:
    deadline = None if within is None else asyncio.get_running_loop().time() + within
    with pytest.raises((StepFailed, Unavailable)) as caught:
        await Link(NoAgent(), console).up(RECORD, deadline)
    return caught.value


async def test_its_end_is_told() -> None:
    async def console(instance: InstanceId) -> bytes:
        assert instance == "i-1"
        return b"Kernel panic - not syncing\r\n"

    error = await _says(console)
    assert str(error) == "podvm-web-aaaaaaaa was not reached; its console ends with:\nKernel panic - not syncing"
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)


@pytest.mark.parametrize("failure", [NotSupported("no consoles here"), RuntimeError("a driver's fault")])
async def test_a_console_that_cannot_be_read_hides_nothing(failure: Exception) -> None:
    async def console(instance: InstanceId) -> bytes:
        raise failure

    assert str(await _says(console)) == "podvm-web-aaaaaaaa was not reached"


async def test_a_slow_cloud_does_not_cost_the_deadline() -> None:
    async def console(instance: InstanceId) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with asyncio.timeout(1):
        assert str(await _says(console, within=0.1)) == "podvm-web-aaaaaaaa was not reached"


async def test_a_driver_without_one() -> None:
    """As where a running pod's link is opened again: the error stays what the links have raised."""
    error = await _says(None)
    assert type(error) is Unavailable
    assert str(error) == "podvm-web-aaaaaaaa was not reached"
