"""What is said on the console can be read back."""

import logging
from collections.abc import Iterator

import pytest

from podvm.progress import Step, log_to_console, say, steps


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_lines_are_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    say("boot")
    say("agent listens")
    found = steps(capsys.readouterr().out)
    assert [step.text for step in found] == ["boot", "agent listens"]
    assert found[0].time <= found[1].time


def test_other_lines_are_no_steps() -> None:
    console = "noise\n[     1.500000] podvm: boot\n[x] podvm: no\n[  2.000000] kernel: no\npodvm: no\n"
    assert steps(console) == [Step(1.5, "boot")]


def test_the_log_goes_to_the_console(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_console()
    logging.getLogger("podvm.any").info("wrote %s", "x")
    assert [step.text for step in steps(capsys.readouterr().out)] == ["wrote x"]
