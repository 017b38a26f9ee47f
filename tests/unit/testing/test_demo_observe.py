"""Spans of the waterfall out of logs and consoles."""

import json
from datetime import UTC, datetime

import pytest

from caa.testing.demo.observe import (
    cloud_milestones,
    guest_lines,
    guest_milestones,
    node_steps,
    source_of_user_data,
    stamp,
    vm_milestones,
    vm_started,
)
from caa.testing.demo.report import Span

BEGAN = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()


def line(step: str, *, sandbox: str = "s1", at: str = "2025-03-04T05:06:07.250000Z", ms: float = 200.0) -> str:
    return json.dumps({"event": "step done", "step": step, "sandbox": sandbox, "timestamp": at, "ms": ms})


def test_a_step_ends_when_its_line_was_written() -> None:
    (span,) = node_steps(line("launch"), sandbox="s1", began=BEGAN)
    assert (span.name, span.length_ms) == ("  node: launch", 200.0)
    assert span.start_ms == pytest.approx(50.0)


def test_only_the_steps_of_this_sandbox_count() -> None:
    log = "\n".join(
        [
            "a line of an interpreter that complains",
            line("own"),
            line("own", sandbox="s2"),
            json.dumps({"event": "node serves", "sandbox": "s1", "timestamp": "2025-03-04T05:06:07Z"}),
            line("launch"),
        ]
    )
    assert [one.name for one in node_steps(log, sandbox="s1", began=BEGAN)] == ["  node: own", "  node: launch"]
    assert node_steps("", sandbox="s1", began=BEGAN) == []


def test_milestones_follow_each_other_without_gaps() -> None:
    console = (
        "[   10.100000] podvm: boot\n"
        "some program's own line\n"
        "[   10.150000] podvm: podns is there\n"
        "[   10.160000] podvm: agent started\n"  # no milestone
        "[   10.400000] podvm: agent listens\n"
    )
    spans = guest_milestones(console, 10.0)
    assert [(one.name, round(one.start_ms), round(one.length_ms)) for one in spans] == [
        ("  guest: boot", 100, 0),
        ("  guest: podns is there", 100, 50),
        ("  guest: agent listens", 150, 250),
    ]
    assert all(isinstance(one, Span) for one in spans)


def test_a_fake_cloud_says_when_it_was_asked_and_when_it_switched_on() -> None:
    console = (
        "[   10.100000] hypervisor: asked for\n[   11.600000] hypervisor: switched on\n[   11.700000] podvm: boot\n"
    )
    assert [(one.name, round(one.start_ms), round(one.length_ms)) for one in cloud_milestones(console, 10.0)] == [
        ("  cloud: asked for", 100, 0),
        ("  cloud: switched on", 100, 1500),
    ]
    assert cloud_milestones("[   11.700000] podvm: boot\n", 10.0) == []


def test_the_guest_says_where_its_user_data_came_from() -> None:
    assert source_of_user_data("[    1.000000] podvm: boot\n[    1.100000] podvm: user data from aws\n") == "aws"
    assert source_of_user_data("[    1.000000] podvm: no source of user data\n") == ""


def test_a_guest_that_said_nothing_has_no_milestones() -> None:
    assert guest_milestones("", 0.0) == []
    assert guest_milestones("podvm: boot\n[ x ] podvm: boot\n", 0.0) == []


VM_CONSOLE = (
    "BdsDxe: starting Boot0001\n"
    "[    0.900000] a line of the kernel\n"
    "process-user-data[99]: [    2.000000] podvm: boot\n"
    "[    2.125000] podvm: podns is there\r\n"
)


def test_a_real_vm_s_clock_begins_after_its_firmware() -> None:
    spans = vm_milestones(VM_CONSOLE, started=300.0, clock_began=1.5)
    assert [(one.name, one.start_ms, one.length_ms) for one in spans] == [
        ("  guest: firmware", 300, 1200),
        ("  guest: kernel", 1500, 2000),
        ("  guest: boot", 3500, 0),
        ("  guest: podns is there", 3500, 125),
    ]
    assert guest_lines(VM_CONSOLE, -1.5) == [(3500, "boot"), (3625, "podns is there")]


def test_a_real_vm_that_said_nothing_has_no_milestones() -> None:
    assert vm_milestones("", started=300.0, clock_began=None) == []
    assert vm_milestones(VM_CONSOLE, started=None, clock_began=1.5) == []


def test_the_stamp_of_a_line() -> None:
    assert [stamp(one) for one in VM_CONSOLE.splitlines()] == [None, None, 2.0, 2.125]


def test_when_the_vm_began_to_run() -> None:
    def said(sandbox: str, at: str) -> str:
        event = "the VM runs, its address is waited for"
        return json.dumps({"event": event, "sandbox": sandbox, "timestamp": f"2025-03-04T05:06:{at}Z"})

    log = "\n".join([said("s1", "07.5"), said("s2", "08.5"), line("launch")])  # a start that was undone, and made again
    assert vm_started(log, sandbox="s2", began=BEGAN) == pytest.approx(1500)
    assert vm_started(f"{log}\n{said('s1', '09.5')}", sandbox="s1", began=BEGAN) == pytest.approx(2500)
    assert vm_started(log, sandbox="s3", began=BEGAN) is None
