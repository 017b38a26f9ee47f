"""When a certificate is told of, as what, and how often."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from caa.wire.expiry import Expiry, State, Watch, state_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH = 30 * DAY
LONG = Expiry(subject="CA 1", begins=NOW, ends=NOW + 3650 * DAY, remedy="rotate it")
SHORT = Expiry(subject="client", begins=NOW, ends=NOW + DAY, remedy="look")


@pytest.mark.parametrize(
    ("expiry", "left", "state"),
    [
        (LONG, 31 * DAY, State.FINE),
        (LONG, MONTH, State.SOON),
        (LONG, 7.6 * DAY, State.SOON),
        (LONG, 7.5 * DAY, State.URGENT),
        (LONG, timedelta(0), State.EXPIRED),
        (LONG, -DAY, State.EXPIRED),
        (LONG, 3651 * DAY, State.EARLY),
        (SHORT, 0.26 * DAY, State.FINE),
        (SHORT, 0.25 * DAY, State.SOON),
        (SHORT, 0.06 * DAY, State.URGENT),
    ],
)
def test_states(expiry: Expiry, left: timedelta, state: State) -> None:
    now = expiry.ends - left
    assert state_of(expiry, now, warning=MONTH) is state
    assert expiry.seconds_left(now) == left.total_seconds()


def test_a_certificate_is_told_of_once_a_day_and_whenever_it_gets_worse() -> None:
    watch, told = Watch(), []
    for hour in range(32 * 24 + 1):
        now = LONG.ends - MONTH - DAY + timedelta(hours=hour)
        told += [(hour / 24, one.state) for one in watch.due([LONG], now, warning=MONTH)]
    assert told[0] == (1.0, State.SOON)
    assert [state for _, state in told].count(State.SOON) == 23
    assert [state for _, state in told].count(State.URGENT) == 8
    assert told[-1] == (32.0, State.EXPIRED)
    assert next(day for day, state in told if state is State.EXPIRED) == 31.0


def test_what_is_told() -> None:
    (notice,) = Watch().due([LONG, SHORT], LONG.ends - 3 * DAY - timedelta(hours=1), warning=MONTH)[:1]
    assert (notice.days_left, notice.state, notice.is_error) == (3.0, State.URGENT, True)
    (soon,) = Watch().due([LONG], LONG.ends - 20 * DAY, warning=MONTH)
    assert (soon.days_left, soon.is_error) == (20.0, False)


def test_one_that_was_renewed_and_comes_again_is_told_of_anew() -> None:
    watch = Watch()
    assert watch.due([SHORT], SHORT.ends, warning=MONTH)
    renewed = replace(SHORT, ends=SHORT.ends + DAY)
    assert not watch.due([renewed], SHORT.ends, warning=MONTH)
    assert watch.due([renewed], renewed.ends, warning=MONTH)


def test_a_clock_that_was_set_back_does_not_silence_it() -> None:
    watch = Watch()
    assert watch.due([LONG], LONG.ends - DAY, warning=MONTH)
    assert watch.due([LONG], LONG.ends - 3 * DAY, warning=MONTH)
