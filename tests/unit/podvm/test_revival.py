"""When a pod VM without systemd starts its forwarder again."""

import pytest

from caa.errors import NetworkError
from podvm.boot import Revival


class Clock:
    """Time that the test moves, and the starts in it; the next `failures` of them fail."""

    def __init__(self) -> None:
        self.time = 100.0
        self.starts: list[float] = []
        self.failures = 0
        self.revival = Revival(self.start, lambda: self.time)

    def start(self) -> None:
        self.starts.append(self.time)
        if self.failures:
            self.failures -= 1
            raise NetworkError("no way to the worker")

    def until(self, end: float, *, life: float) -> None:
        """Each forwarder lives for `life` seconds."""
        ends = self.time
        while self.time < end:
            left = self.revival.left()
            if left is None:
                self.time = ends = max(ends, self.starts[-1] + life) if self.starts else ends
            else:
                self.time += left
            self.revival.attend()


def test_one_that_has_lived_is_started_at_once() -> None:
    clock = Clock()
    clock.time += 5
    assert clock.revival.left() is None
    clock.revival.attend()
    assert clock.starts == [105.0]
    assert clock.revival.left() is None


def test_ones_that_end_at_once_are_started_ever_more_slowly_but_for_ever() -> None:
    clock = Clock()
    clock.until(200.0, life=0.0)
    pauses = [round(later - sooner, 2) for sooner, later in zip(clock.starts, clock.starts[1:], strict=False)]
    assert pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(pauses[6:]) == {2.0}
    assert len(clock.starts) > 45


def test_one_that_cannot_be_started_is_tried_again() -> None:
    clock = Clock()
    clock.time += 5
    clock.failures = 2
    clock.revival.attend()
    assert clock.revival.left() == pytest.approx(0.05)
    clock.until(106.0, life=10.0)
    assert clock.starts[:3] == pytest.approx([105.0, 105.05, 105.15])
