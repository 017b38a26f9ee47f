"""Log lines: their form, their context, and what is never in them."""

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from caa import logs


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Other tests get the logging they had."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_time_level_event_and_context() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)
    with logs.context(sandbox="s1", pod="default/nginx"):
        structlog.get_logger().info("started", took=1.5, path=Path("/x"))
    structlog.get_logger().debug("not written")
    structlog.get_logger().info("outside")
    first, second = _lines(stream)
    assert {key: first[key] for key in ("event", "level", "sandbox", "pod", "took", "path")} == {
        "event": "started",
        "level": "info",
        "sandbox": "s1",
        "pod": "default/nginx",
        "took": 1.5,
        "path": "/x",
    }
    assert first["timestamp"].endswith("Z")
    assert not {"sandbox", "instance"} & set(second)


async def test_each_task_has_its_own_context() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)

    async def work(name: str) -> None:
        with logs.context(sandbox=name):
            await asyncio.sleep(0)
            structlog.get_logger().info("worked")

    await asyncio.gather(*(work(f"s{number}") for number in range(5)))
    assert sorted(line["sandbox"] for line in _lines(stream)) == ["s0", "s1", "s2", "s3", "s4"]


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "token",
        "API_KEY",
        "tls-server-key",
        "authorization",
        "initdata",
        "policy",
        "user_data",
    ],
)
def test_fields_with_such_names_are_blanked_out(key: str) -> None:
    redact = logs.Redaction()
    assert redact(None, "", {key: "hunter2", "inner": {key: "hunter2"}}) == {
        key: logs.REDACTED,
        "inner": {key: logs.REDACTED},
    }


@pytest.mark.parametrize("key", ["event", "key", "path", "tokens_left", "keyed", "instance"])
def test_other_fields_are_not(key: str) -> None:
    assert logs.Redaction()(None, "", {key: "value"}) == {key: "value"}


def test_known_secrets_and_private_keys_are_blanked_out_everywhere() -> None:
    redact = logs.Redaction(["hunter2-hunter2", "hunter2", "abc"])
    key = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"
    written = redact(
        None,
        "",
        {
            "event": f"cannot use hunter2-hunter2 with {key} abc",
            "items": ["hunter2", ("x", {"y": "hunter2"})],
            "error": ValueError("hunter2"),
            "cut": "-----BEGIN EC PRIVATE KEY-----\nMIGH",
            "body": b"hunter2",
            "count": 3,
            "nothing": None,
        },
    )
    assert "hunter2" not in str(written)
    assert "MIGH" not in str(written)
    assert written["event"] == "cannot use ********** with **********\n abc"
    assert (written["body"], written["count"], written["nothing"]) == ("<7 bytes>", 3, None)


def test_a_traceback_is_redacted_too() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", secrets=["hunter2"], stream=stream)
    try:
        raise ValueError("hunter2")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = _lines(stream)
    assert "ValueError" in line["exception"]
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_libraries_are_heard_from_warning_on_and_redacted(style: str) -> None:
    stream = io.StringIO()
    logs.configure("debug", style, secrets=["hunter2"], stream=stream)
    logging.getLogger("boto").info("request")
    logging.getLogger("boto").warning("bad %s", "hunter2")
    text = stream.getvalue()
    assert "request" not in text
    assert "hunter2" not in text
    assert "bad **********" in text
    assert "\x1b" not in text


def test_the_console_writes_one_readable_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "console", stream=stream)
    with logs.context(instance="i-1"):
        structlog.get_logger().warning("slow", seconds=3)
    (line,) = stream.getvalue().splitlines()
    assert "slow" in line
    assert "instance=i-1" in line
    assert "seconds=3" in line


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        lossy = logs.Lossy(stream)
        for _ in range(1000):
            assert lossy.write("x" * 1000 + "\n") == 1001
        os.set_blocking(reader.fileno(), False)
        assert 0 < len(reader.read()) <= 1 << 16


def test_a_reader_that_is_gone_a_closed_stream_and_a_full_disk_cost_the_line() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        logs.Lossy(stream).write("lost\n")
    logs.Lossy(stream).write("closed\n")
    with Path("/dev/full").open("w") as full:
        logs.Lossy(full).write("no room\n")
