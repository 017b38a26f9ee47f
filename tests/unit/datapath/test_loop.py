"""The loop on pipes: events, timers, and a handler that fails."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import caa
from caa.datapath.frames import SLACK
from caa.datapath.loop import BUFFER_SIZE, IN, Loop, be_nice


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    ends = [os.pipe() for _ in range(3)]
    yield ends
    for pair in ends:
        for fd in pair:
            os.close(fd)


class Owner:
    """Whose handler may fail."""

    def __init__(self, ready: Callable[[int], object], crashed: Callable[[], object] = lambda: None) -> None:
        self.ready = ready
        self.crashed = crashed


class Closed:
    """Remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_a_failing_handler_costs_its_own_connection_only(
    pipes: list[tuple[int, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    loop = Loop()
    seen: list[str] = []

    def fail(_event: int) -> None:
        raise RuntimeError("a fault")

    def crash() -> None:
        seen.append("crash")
        loop.remove(pipes[0][0])

    def read(_event: int) -> None:
        seen.append(os.read(pipes[1][0], 10).decode())
        if len(seen) == 3:
            loop.stop()

    loop.add(pipes[0][0], IN, owner=Owner(fail, crash))
    loop.add(pipes[1][0], IN, owner=Owner(read))
    os.write(pipes[0][1], b"x")
    os.write(pipes[1][1], b"one")
    loop.later(0.01, lambda: os.write(pipes[1][1], b"two"))
    loop.run()
    assert sorted(seen) == ["crash", "one", "two"]
    assert loop.counts == {"crashed": 1}
    assert "RuntimeError: a fault at test_loop.py" in capfd.readouterr().err


def test_a_crash_that_fails_too_is_taken_out(pipes: list[tuple[int, int]]) -> None:
    loop = Loop()

    def fail(_event: int = 0) -> None:
        raise RuntimeError("again")

    loop.add(pipes[0][0], IN, owner=Owner(fail, fail))
    os.write(pipes[0][1], b"x")
    loop.later(0.02, loop.stop)
    loop.run()
    assert loop.counts == {"crashed": 2}
    assert loop.wants(pipes[0][0]) == 0


def test_timers_come_in_order_and_may_be_cancelled() -> None:
    loop = Loop()
    seen: list[int] = []
    loop.later(0.02, loop.stop)
    loop.later(0.01, lambda: seen.append(2))
    loop.later(0.0, lambda: seen.append(1))
    gone = loop.later(0.005, lambda: seen.append(9))
    gone.cancel()
    gone.cancel()
    loop.later(0.006, lambda: 1 // 0)
    loop.run()
    assert seen == [1, 2]
    assert loop.counts == {"crashed": 1}


def test_a_timer_far_away_is_waited_for_in_parts() -> None:
    """epoll refuses a wait of more than 24.8 days; a cancelled timer is not waited for at all."""
    loop = Loop()
    loop.later(400 * 86400, lambda: None)
    loop.later(1.0, lambda: None).cancel()
    assert loop._wait() == 3600
    loop.later(0.01, loop.stop)
    loop.run()
    assert loop.counts == {}


def test_a_full_stderr_loses_lines_and_waits_for_nobody() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from caa.datapath.loop import say\n"
        "for _ in range(1000): say('x' * 1000)\n"
        "print('done', flush=True)"
    )
    argv = [sys.executable, "-I", "-c", program, str(Path(caa.__file__).parents[1])]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"done\n"
    child.communicate(timeout=10)


def test_a_flood_of_lines_is_counted_and_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    for _ in range(500):
        loop.count("malformed", "a bad peer")
    loop.count("other", "still said")
    lines = capfd.readouterr().err.splitlines()
    assert loop.counts["malformed"] == 500
    assert lines.count("malformed: a bad peer") == 20
    assert lines[-1] == "other: still said"


def test_nothing_asked_for_is_no_event_at_all(pipes: list[tuple[int, int]]) -> None:
    """A mask of 0 would report the hang-up again and again."""
    loop = Loop()
    seen: list[int] = []
    end, other = os.pipe()
    loop.add(end, IN, owner=Owner(seen.append))
    loop.mute(end, IN)
    os.close(other)
    loop.later(0.02, loop.stop)
    loop.run()
    assert seen == []
    loop.remove(end)
    loop.remove(end)
    loop.remove(10_000)
    os.close(end)


def test_what_is_closed_is_closed_after_the_batch(pipes: list[tuple[int, int]]) -> None:
    loop = Loop()
    thing = Closed()
    states: list[bool] = []

    def end(_event: int) -> None:
        loop.close(thing, pipes[0][0])
        states.append(thing.closed)

    loop.add(pipes[0][0], IN, owner=Owner(end))
    os.write(pipes[0][1], b"x")
    loop.later(0.01, loop.stop)
    loop.run()
    assert states == [False]
    assert thing.closed


def test_the_buffer_has_slack_behind_it() -> None:
    loop = Loop()
    assert len(loop.buffer) == BUFFER_SIZE
    assert len(loop.raw) == BUFFER_SIZE + SLACK


def test_a_niceness_that_is_none_is_said_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.nice(0)
    be_nice("much")
    assert os.nice(0) == before
    assert "niceness much not taken" in capfd.readouterr().err
