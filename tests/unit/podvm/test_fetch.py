"""Choosing a source and fetching from it, on a clock that jumps."""

from pathlib import Path

import pytest

from caa.errors import DeadlineExceeded, InvalidInput, StateError, Unavailable
from podvm import provision
from podvm.clock import Clock
from podvm.provision import Rules


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, sleep=self.sleep)


class Late:
    """A source that is there, and then answers, only after some time; `tries` are when it was asked."""

    def __init__(self, time: Time, *, there: float = 0.0, answers: float = 0.0, name: str = "late") -> None:
        self.name = name
        self.tries: list[float] = []
        self._time, self._there, self._answers = time, there, answers

    def present(self) -> bool:
        return self._time.at >= self._there

    def fetch(self, seconds: float) -> bytes:
        self.tries.append(self._time.at)
        if self._time.at < self._answers:
            raise Unavailable("not yet")
        return b"document"


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_slow_service_is_waited_for(time: Time) -> None:
    source = Late(time, answers=60)
    assert provision.fetch(source, Rules(clock=time.clock)) == b"document"
    gaps = [after - before for before, after in zip(source.tries, source.tries[1:], strict=False)]
    assert gaps[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert max(gaps) == 5.0


def test_the_whole_time_is_used_and_no_more(time: Time) -> None:
    source = Late(time, answers=1e9)
    with pytest.raises(DeadlineExceeded, match="no user data within 180 s: not yet"):
        provision.fetch(source, Rules(clock=time.clock))
    assert 170 < time.at <= 180


def test_what_never_works_is_not_repeated(time: Time) -> None:
    class Never(Late):
        def fetch(self, seconds: float) -> bytes:
            super().fetch(seconds)
            raise InvalidInput("the VM has no user data")

    source = Never(time)
    with pytest.raises(InvalidInput):
        provision.fetch(source, Rules(clock=time.clock))
    assert source.tries == [0.0]


def test_a_drive_may_take_a_moment(time: Time, tmp_path: Path) -> None:
    source = Late(time, there=3.0)
    assert provision.choose([source], Rules(root=tmp_path, clock=time.clock)) is source
    assert time.at == pytest.approx(3.0, abs=0.2)


def test_nothing_is_waited_for_where_cloud_init_was_before(time: Time, tmp_path: Path) -> None:
    (tmp_path / "run/peerpod").mkdir(parents=True)
    (tmp_path / "run/peerpod/apf.json").write_text("{}")
    assert provision.choose([Late(time, there=3.0)], Rules(root=tmp_path, clock=time.clock)) is None
    assert time.at == 0.0


def test_a_machine_without_a_source_goes_on_after_ten_seconds(time: Time, tmp_path: Path) -> None:
    assert provision.choose([Late(time, there=1e9)], Rules(root=tmp_path, clock=time.clock)) is None
    assert time.at == pytest.approx(10.0, abs=0.2)


def test_the_first_source_wins_and_a_flag_names_another(time: Time, tmp_path: Path) -> None:
    both = [Late(time, name="first"), Late(time, name="second")]
    assert provision.choose(both, Rules(root=tmp_path, clock=time.clock)) is both[0]
    assert provision.choose(both, Rules(root=tmp_path, clock=time.clock, source="second")) is both[1]
    with pytest.raises(StateError, match="-source third: known are first, second"):
        provision.choose(both, Rules(root=tmp_path, clock=time.clock, source="third"))
