"""Secrets never reach a line, in whatever place they are; both forms of a line can be read."""

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from caa.node.logs import Blotter, configure


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def test_secrets_are_blotted_out_everywhere() -> None:
    line = {"event": "key=hunter22", "deep": {"list": ["a hunter22 b", 7]}, "pair": ("hunter22", None)}
    blotted = Blotter(["hunter22", "x", ""])(None, "", line)
    assert "hunter22" not in str(blotted)
    assert blotted["deep"]["list"][1] == 7


def test_a_line_of_ours_and_one_of_a_library() -> None:
    stream = StringIO()
    configure(level="info", form="json", secrets=["hunter22"], stream=stream)
    with structlog.contextvars.bound_contextvars(sandbox="s1"):
        structlog.get_logger("x").info("started", token="hunter22")
        structlog.get_logger("x").debug("not shown")
        logging.getLogger("some.library").warning("password %s", "hunter22")
    ours, theirs = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (ours["event"], ours["sandbox"], ours["level"]) == ("started", "s1", "info")
    assert (theirs["sandbox"], theirs["level"]) == ("s1", "warning")
    assert "hunter22" not in stream.getvalue()


def test_an_exception_is_told_on_the_console() -> None:
    stream = StringIO()
    configure(level="error", form="console", secrets=[], stream=stream)
    try:
        raise ValueError("oh")
    except ValueError as error:
        structlog.get_logger("x").error("failed", exc_info=error)
    assert "ValueError: oh" in stream.getvalue()
