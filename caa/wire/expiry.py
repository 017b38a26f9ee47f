"""When certificates end, and when somebody has to hear of it. Pure: no files, and the time is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

_AGAIN = timedelta(days=1)
_SHARE = 4  # a certificate that lives for a day is not told of a month before its end, but in its last quarter
_URGENT = 4  # the last quarter of the time of warnings is one of errors


class State(StrEnum):
    """What is the matter with a certificate."""

    FINE = "fine"
    SOON = "ends soon"
    URGENT = "ends very soon"
    EXPIRED = "has expired"
    EARLY = "is not valid yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """One certificate: what it is, from when until when it holds, and what to do before its end."""

    subject: str
    begins: datetime
    ends: datetime
    remedy: str

    def seconds_left(self, now: datetime) -> float:
        """Seconds until its end, below 0 after it: the value of a metric."""
        return (self.ends - now).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told of one certificate now."""

    expiry: Expiry
    state: State
    days_left: float

    @property
    def is_error(self) -> bool:
        """Whether it is too late for a mere warning."""
        return self.state is not State.SOON


def state_of(expiry: Expiry, now: datetime, *, warning: timedelta) -> State:
    """Where a certificate stands; `warning` is how long before its end to begin, at most its last quarter."""
    window = min(warning, (expiry.ends - expiry.begins) / _SHARE)
    left = expiry.ends - now
    if now < expiry.begins:
        return State.EARLY
    if left <= timedelta(0):
        return State.EXPIRED
    if left <= window / _URGENT:
        return State.URGENT
    return State.SOON if left <= window else State.FINE


def days(left: timedelta) -> float:
    """As a person wants to read it."""
    return round(left / timedelta(days=1), 1)


class Watch:
    """Tells of each certificate when its state gets worse, and once a day as long as it is not fine."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[State, datetime]] = {}

    def due(self, expiries: Sequence[Expiry], now: datetime, *, warning: timedelta) -> list[Notice]:
        """What to tell now; the caller tells it."""
        found = []
        told, self._told = self._told, {}
        for expiry in expiries:
            state = state_of(expiry, now, warning=warning)
            if state is State.FINE:
                continue
            before = told.get(expiry.subject)
            if before is None or before[0] is not state or not timedelta(0) <= now - before[1] < _AGAIN:
                found.append(Notice(expiry=expiry, state=state, days_left=days(expiry.ends - now)))
                before = state, now
            self._told[expiry.subject] = before
        return found
