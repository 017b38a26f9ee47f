"""Clouds without room: telling capacity errors from all others, and trying the next place in order. No I/O.

Only "no room" moves on to the next place. Any other error may have made something, so trying elsewhere after it
could leave a second pod VM (the reference's IBM driver does; `reference/providers.md` 5.2).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from caa.errors import (
    CapacityError,
    CredentialsError,
    Gone,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod VM may be made: an instance type, a zone ("" for the only or default one), and how it is bought."""

    instance_type: str = ""
    zone: str = ""
    spot: bool = False

    def __str__(self) -> str:
        place = " in ".join(part for part in (self.instance_type, self.zone) if part) or "the default place"
        return f"{place} (spot)" if self.spot else place


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCodes:
    """A cloud's own codes, sorted by what they mean for us; each driver keeps one such table as data.

    `remedies` says by code what to change, naming the setting or annotation; it is added to the cloud's own words.
    """

    capacity: frozenset[str] = field(default_factory=frozenset)
    quota: frozenset[str] = field(default_factory=frozenset)
    throttled: frozenset[str] = field(default_factory=frozenset)
    unavailable: frozenset[str] = field(default_factory=frozenset)
    unauthorised: frozenset[str] = field(default_factory=frozenset)
    misconfigured: frozenset[str] = field(default_factory=frozenset)
    invalid: frozenset[str] = field(default_factory=frozenset)
    gone: frozenset[str] = field(default_factory=frozenset)
    remedies: Mapping[str, str] = field(default_factory=dict)


def classified(code: str, message: str, *, codes: ErrorCodes, retry_after: float = 0.0) -> ProviderError:
    """Our error for a cloud's code. An unknown code is a plain `ProviderError`, which nothing retries."""
    remedy = codes.remedies.get(code, "")
    text = f"{code}: {message.rstrip('. ')}; {remedy}" if remedy else f"{code}: {message}"
    if code in codes.throttled:
        return Throttled(text, retry_after=retry_after)
    for known, kind in (
        (codes.capacity, CapacityError),
        (codes.quota, QuotaError),
        (codes.unavailable, ProviderUnavailable),
        (codes.unauthorised, CredentialsError),
        (codes.misconfigured, Misconfigured),
        (codes.invalid, InvalidRequest),
        (codes.gone, Gone),
    ):
        if code in known:
            return kind(text)
    return ProviderError(text)


def places(instance_types: Sequence[str], zones: Iterable[str], *, spot: Sequence[bool] = (False,)) -> list[Place]:
    """Every place in the order to try: all types in the first zone, then the next zone, then the next way to buy."""
    in_zones = list(dict.fromkeys(zones)) or [""]
    return [
        Place(instance_type=one, zone=zone, spot=bought)
        for bought in spot
        for zone in in_zones
        for one in dict.fromkeys(instance_types)
    ]


class FullPlaces:
    """The places that had no room a short while ago. One node's memory; a restart forgets it."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._until: dict[Place, float] = {}

    def add(self, place: Place) -> None:
        """Pass this place over from now on, for the time that was given."""
        self._until[place] = self._now() + self._seconds

    def without(self, candidates: Sequence[Place]) -> list[Place]:
        """The candidates that may have room, in their order; if all are known full, the one known for the longest."""
        now = self._now()
        self._until = {place: until for place, until in self._until.items() if until > now}
        left = [place for place in candidates if place not in self._until]
        return left or sorted(candidates, key=lambda place: self._until[place])[:1]


async def first_with_room(
    candidates: Sequence[Place], attempt: Callable[[Place], Awaitable[T]], *, full: FullPlaces | None = None
) -> T:
    """Run `attempt` on one place after the other until one does not raise `CapacityError`.

    Any other error ends the search at once. When no place has room, raises a `CapacityError` that names each place
    and what the cloud said about it. `attempt` has to be all or nothing. `full` remembers, and leaves out, places
    without room.
    """
    if not candidates:
        raise InvalidRequest("no place to make the pod VM in: the list of instance types and zones is empty")
    refusals: list[str] = []
    for place in full.without(candidates) if full else candidates:
        try:
            return await attempt(place)
        except CapacityError as error:
            refusals.append(f"{place}: {error}")
            if full:
                full.add(place)
    raise CapacityError("no room in any allowed place: " + "; ".join(refusals))
