"""Spans of the waterfall out of logs and consoles."""

import json
from datetime import UTC, datetime

import pytest

from caa.testing.demo.observe import guest_milestones, node_steps, source_of_user_data
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


def test_the_guest_says_where_its_user_data_came_from() -> None:
    assert source_of_user_data("[    1.000000] podvm: boot\n[    1.100000] podvm: user data from aws\n") == "aws"
    assert source_of_user_data("[    1.000000] podvm: no source of user data\n") == ""


def test_a_guest_that_said_nothing_has_no_milestones() -> None:
    assert guest_milestones("", 0.0) == []
    assert guest_milestones("podvm: boot\n[ x ] podvm: boot\n", 0.0) == []
