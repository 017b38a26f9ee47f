"""Only "no room" moves on to the next place."""

import pytest

from caa.errors import CapacityError, InvalidRequest, ProviderError, ProviderUnavailable, QuotaError, Throttled
from caa.provider.capacity import ErrorCodes, FullPlaces, Place, classified, first_with_room, places

CODES = ErrorCodes(
    capacity=frozenset({"InsufficientInstanceCapacity"}),
    quota=frozenset({"VcpuLimitExceeded"}),
    throttled=frozenset({"RequestLimitExceeded"}),
    invalid=frozenset({"InvalidAMIID.NotFound"}),
)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("InsufficientInstanceCapacity", CapacityError, True),
        ("VcpuLimitExceeded", QuotaError, False),
        ("RequestLimitExceeded", Throttled, True),
        ("InvalidAMIID.NotFound", InvalidRequest, False),
        ("Surprise", ProviderError, False),
    ],
)
def test_codes_are_told_apart(code: str, kind: type[ProviderError], retryable: bool) -> None:
    error = classified(code, "the cloud's words", codes=CODES)
    assert type(error) is kind
    assert error.retryable is retryable
    assert str(error) == f"{code}: the cloud's words"


def test_places_go_through_the_types_first() -> None:
    assert [str(one) for one in places(["a", "b"], ["1", "2"])] == ["a in 1", "b in 1", "a in 2", "b in 2"]
    assert places(["a"], []) == [Place(instance_type="a")]
    assert str(Place()) == "the default place"


async def test_the_first_place_with_room_wins() -> None:
    tried: list[str] = []

    async def attempt(place: Place) -> str:
        tried.append(place.zone)
        if place.zone != "3":
            raise CapacityError("full")
        return place.zone

    assert await first_with_room(places(["t"], ["1", "2", "3", "4"]), attempt) == "3"
    assert tried == ["1", "2", "3"]


async def test_any_other_error_ends_the_search() -> None:
    tried: list[str] = []

    async def attempt(place: Place) -> str:
        tried.append(place.zone)
        raise ProviderUnavailable("the answer was lost")

    with pytest.raises(ProviderUnavailable, match="the answer was lost"):
        await first_with_room(places(["t"], ["1", "2"]), attempt)
    assert tried == ["1"]


async def test_no_room_anywhere_names_every_place() -> None:
    async def attempt(place: Place) -> str:
        raise CapacityError(f"full {place.zone}")

    with pytest.raises(CapacityError, match="t in 1: full 1; t in 2: full 2"):
        await first_with_room(places(["t"], ["1", "2"]), attempt)


async def test_no_place_at_all_is_an_error() -> None:
    async def attempt(place: Place) -> str:
        raise AssertionError(place)

    with pytest.raises(InvalidRequest, match="empty"):
        await first_with_room([], attempt)


def test_a_remedy_follows_the_clouds_own_words() -> None:
    codes = ErrorCodes(invalid=frozenset({"NoImage"}), remedies={"NoImage": "set IMAGE to one that exists"})
    assert str(classified("NoImage", "no such image", codes=codes)) == (
        "NoImage: no such image; set IMAGE to one that exists"
    )


def test_what_the_cloud_says_about_waiting_is_kept() -> None:
    error = classified("RequestLimitExceeded", "slow down", codes=CODES, retry_after=7)
    assert isinstance(error, Throttled)
    assert error.retry_after == 7


def test_the_other_way_to_buy_comes_last() -> None:
    found = places(["a", "b", "a"], ["1"], spot=(True, False))
    assert [str(one) for one in found] == ["a in 1 (spot)", "b in 1 (spot)", "a in 1", "b in 1"]


async def test_a_full_place_is_passed_over_for_a_time() -> None:
    time = [0.0]
    full = FullPlaces(180, lambda: time[0])
    tried: list[str] = []

    async def attempt(place: Place) -> str:
        tried.append(place.zone)
        if place.zone == "1":
            raise CapacityError("full")
        return place.zone

    candidates = places(["t"], ["1", "2"])
    for _ in range(2):
        assert await first_with_room(candidates, attempt, full=full) == "2"
    time[0] = 181
    assert await first_with_room(candidates, attempt, full=full) == "2"
    assert tried == ["1", "2", "2", "1", "2"]


async def test_when_all_are_known_full_one_is_asked_again() -> None:
    time = [0.0]
    full = FullPlaces(180, lambda: time[0])
    candidates = places(["t"], ["1", "2", "3"])
    for place in (candidates[1], candidates[0], candidates[2]):
        full.add(place)
        time[0] += 1
    assert full.without(candidates) == [candidates[1]]
