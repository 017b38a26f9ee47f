"""One log line a call, and never what must not be logged."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from structlog.testing import capture_logs

from caa.errors import CapacityError
from caa.model.ids import InstanceId, SandboxId
from caa.provider.contract import Capabilities, Finding, Instance, InstanceState, InstanceType, LaunchRequest, Owner
from caa.provider.observed import Observed

OWNER = Owner(cluster="c", node="n")
REQUEST = LaunchRequest(
    name="podvm-x-1", sandbox=SandboxId("s"), owner=OWNER, token="t", user_data=b"secret-key", instance_type="m5"
)


class Driver:
    """Answers everything, or raises what it was given."""

    capabilities = Capabilities(console=True)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    async def check(self) -> Sequence[Finding]:
        return []

    async def instance_types(self) -> Sequence[InstanceType]:
        return []

    async def create(self, request: LaunchRequest) -> Instance:
        if self.error:
            raise self.error
        return Instance(id=InstanceId("i-1"), name=request.name, addresses=(ip_address("10.0.0.1"),))

    async def delete(self, instance: InstanceId) -> None:
        return None

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        return []

    async def state(self, instance: InstanceId) -> InstanceState:
        return InstanceState.RUNNING

    async def console(self, instance: InstanceId) -> bytes:
        return b"secret words of the guest"

    async def close(self) -> None:
        return None


def observed(error: BaseException | None = None) -> Observed:
    ticks = iter([10.0, 10.25] * 10)
    return Observed(Driver(error), "fake", clock=lambda: next(ticks))


async def test_each_call_is_one_line_with_its_duration() -> None:
    driver = observed()
    with capture_logs() as lines:
        assert (await driver.create(REQUEST)).id == "i-1"
        await driver.delete(InstanceId("i-1"))
        assert await driver.list_owned(OWNER) == []
        assert await driver.state(InstanceId("i-1")) is InstanceState.RUNNING
        assert await driver.check() == []
        assert await driver.instance_types() == []
        assert await driver.console(InstanceId("i-1")) == b"secret words of the guest"
        await driver.close()
    acts = [line["act"] for line in lines]
    assert acts == ["create", "delete", "list_owned", "state", "check", "instance_types", "console", "close"]
    assert {line["duration_ms"] for line in lines} == {250.0}
    assert {line["result"] for line in lines} == {"ok"}
    assert lines[0]["instance"] == "podvm-x-1"
    assert "secret" not in str(lines)
    assert driver.capabilities.console


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (CapacityError("full"), "CapacityError"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("secret"), "broken contract: KeyError"),
    ],
)
async def test_errors_are_seen_and_passed_on(error: BaseException, result: str) -> None:
    with capture_logs() as lines, pytest.raises(type(error)):
        await observed(error).create(REQUEST)
    assert [line["result"] for line in lines] == [result]
    assert "secret" not in str(lines)
