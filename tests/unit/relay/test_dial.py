"""How often a pod VM is tried that is not there yet, by a clock of the test."""

import itertools
from collections.abc import Callable
from errno import ECONNREFUSED
from typing import Any

import pytest

from caa.datapath.frames import DEADLINE_EXCEEDED, Refused
from caa.datapath.tls import TlsFiles
from caa.relay import dial


class PretendTimer:
    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class PretendLoop:
    """Timers fire in order while `run` moves the clock; descriptors are never ready."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.timers: list[PretendTimer] = []

    def now(self) -> float:
        return self.clock

    def later(self, delay: float, call: Callable[[], object]) -> PretendTimer:
        self.timers.append(PretendTimer(self.clock + delay, call))
        return self.timers[-1]

    def add(self, *_args: Any, **_kwargs: Any) -> None: ...

    def close(self, *_args: Any) -> None: ...

    def run(self) -> None:
        while waiting := [one for one in self.timers if one.call is not None]:
            timer = min(waiting, key=lambda one: one.when)
            self.clock, call = timer.when, timer.call
            timer.cancel()
            assert call is not None
            call()


class Caller:
    def __init__(self) -> None:
        self.refused: Refused | None = None

    def not_dialled(self, refused: Refused) -> None:
        self.refused = refused


class Silent:
    """A socket on which nothing comes."""

    def fileno(self) -> int:
        return 5


def dialled(monkeypatch: pytest.MonkeyPatch, connect: Callable[[], Any], *, seconds: float) -> tuple[list[float], str]:
    """The moments of all attempts at a VM with one address, and the words for the end."""
    loop, caller, moments = PretendLoop(), Caller(), []

    def start(_host: str, _port: int) -> Any:
        moments.append(loop.clock)
        return connect()

    monkeypatch.setattr(dial, "start_connect", start)
    target = dial.Target(("192.0.2.7",), 15150, server_name="podvm", files=TlsFiles())
    pretended: Any = loop
    listening: Any = caller
    dial.Dialler(pretended, target, context=None, seconds=seconds, caller=listening)
    loop.run()
    assert caller.refused is not None
    assert caller.refused.code == DEADLINE_EXCEEDED
    return moments, caller.refused.text


def test_a_vm_that_refuses_is_tried_again_within_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise OSError(ECONNREFUSED, "Connection refused")

    moments, text = dialled(monkeypatch, refuse, seconds=30)
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert max(gaps) <= 0.1 + 1e-9
    assert len(moments) < 320
    assert "was not reached within 30.0 s" in text
    assert "Connection refused" in text


def test_of_a_silent_vm_every_fourth_attempt_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    moments, text = dialled(monkeypatch, Silent, seconds=30)
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    patient = [gap >= 2 for gap in gaps]
    assert patient == [number % 4 == 3 for number in range(len(gaps))]
    assert max(gap for gap in gaps if gap < 2) <= 0.5 + 1e-9
    assert "no connection within" in text
