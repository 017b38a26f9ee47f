"""Azure hears that the machine is up: three requests to a strict WireServer, faults, and other clouds."""

from pathlib import Path

import pytest

from caa.errors import InvalidInput
from podvm import azure_ready
from podvm.clock import Clock
from podvm.clouds.machine import Machine
from podvm.clouds.metadata import Service
from tests.fakes.metadata.clouds import WireServer
from tests.fakes.metadata.server import MetadataServer


@pytest.fixture
def azure(tmp_path: Path) -> Machine:
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "chassis_asset_tag").write_text("7783-7084-3265-9085-8269-3286-77\n")
    return Machine(tmp_path)


class Time:
    """A clock that only sleeping moves."""

    at = 0.0

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def clock() -> Clock:
    time = Time()
    return Clock(now=lambda: time.at, sleep=time.sleep)


@pytest.mark.parametrize("faults", [(), (503,), (500, 200, 429)])
def test_azure_is_told_once(azure: Machine, clock: Clock, faults: tuple[int, ...]) -> None:
    wire = WireServer()
    with MetadataServer(wire) as server:
        server.faults.extend(status for status in faults if status != 200)
        assert azure_ready.run(azure, server.service("azure"), clock=clock) == 0
    assert wire.reports == [("1", "c-0123", "i-4567.web_1", "Ready")]


def test_a_wire_server_that_refuses(azure: Machine, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with MetadataServer(WireServer()) as server:
        server.faults.append(403)
        assert azure_ready.run(azure, server.service("azure"), clock=clock) == 1
    assert "Azure does not know that this machine is ready: azure: the WireServer's versions" in caplog.text


def test_ten_minutes_are_enough(azure: Machine, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    nobody = Service("azure", "127.0.0.1", port=1)
    assert azure_ready.run(azure, nobody, clock=clock) == 1
    assert "not within 600 s: azure: GET /?comp=versions got no answer: Connection refused" in caplog.text


def test_elsewhere_nobody_is_asked(tmp_path: Path, clock: Clock) -> None:
    with MetadataServer(WireServer()) as server:
        assert azure_ready.run(Machine(tmp_path), server.service("azure"), clock=clock) == 0
        assert server.seen == []


@pytest.mark.parametrize(
    "goal_state", [b"", b"<GoalState/>", b"<Incarnation>1</Incarnation><ContainerId>a</b>c</ContainerId>", b"\xff"]
)
def test_a_goal_state_that_cannot_be_used(goal_state: bytes) -> None:
    with pytest.raises(InvalidInput, match="the goal state lacks one of"):
        azure_ready.health(goal_state)
