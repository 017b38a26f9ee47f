"""Clouds without room: telling capacity errors from all others, and trying the next place in order. No I/O.

Only "no room" moves on to the next place. Any other error may have made something, so trying elsewhere after it
could leave a second pod VM (the reference's IBM driver does; `reference/providers.md` 5.2).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from caa.errors import CapacityError, InvalidRequest, ProviderError, ProviderUnavailable, QuotaError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod VM may be made: an instance type and a zone ("" for the only or default one)."""

    instance_type: str = ""
    zone: str = ""

    def __str__(self) -> str:
        return " in ".join(part for part in (self.instance_type, self.zone) if part) or "the default place"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCodes:
    """A cloud's own codes, sorted by what they mean for us; each driver keeps one such table as data."""

    capacity: frozenset[str] = field(default_factory=frozenset)
    quota: frozenset[str] = field(default_factory=frozenset)
    throttled: frozenset[str] = field(default_factory=frozenset)
    invalid: frozenset[str] = field(default_factory=frozenset)


def classified(code: str, message: str, *, codes: ErrorCodes) -> ProviderError:
    """Our error for a cloud's code. An unknown code is a plain `ProviderError`, which nothing retries."""
    text = f"{code}: {message}"
    for known, kind in (
        (codes.capacity, CapacityError),
        (codes.quota, QuotaError),
        (codes.throttled, ProviderUnavailable),
        (codes.invalid, InvalidRequest),
    ):
        if code in known:
            return kind(text)
    return ProviderError(text)


def places(instance_types: Iterable[str], zones: Iterable[str]) -> list[Place]:
    """Every place in the order to try: all zones for the wanted type first, then the next type."""
    in_zones = list(zones) or [""]
    return [Place(instance_type=one, zone=zone) for one in instance_types for zone in in_zones]


async def first_with_room(candidates: Sequence[Place], attempt: Callable[[Place], Awaitable[T]]) -> T:
    """Run `attempt` on one place after the other until one does not raise `CapacityError`.

    Any other error ends the search at once. When no place has room, raises a `CapacityError` that names each place
    and what the cloud said about it. `attempt` has to be all or nothing.
    """
    if not candidates:
        raise InvalidRequest("no place to make the pod VM in: the list of instance types and zones is empty")
    refusals: list[str] = []
    for place in candidates:
        try:
            return await attempt(place)
        except CapacityError as error:
            refusals.append(f"{place}: {error}")
    raise CapacityError("no room in any allowed place: " + "; ".join(refusals))
