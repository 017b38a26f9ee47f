"""One launch and one removal: the calls in their order, each find-able again after a lost answer."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa.errors import Gone, InvalidRequest, Misconfigured, ProviderError, ProviderUnavailable, Throttled
from caa.model.instance import Instance, InstanceState
from caa.provider.capacity import Place
from caa.provider.clock import Clock
from caa.provider.rows import USE_PUBLIC_IP
from caa.provider.waiting import Lookout, all_or_nothing, until
from providers.gcp import shapes, translate
from providers.gcp.client import Gce, failed
from providers.gcp.codes import EXISTS
from providers.gcp.surroundings import Waits

_GENERATIONS = 5  # of one sandbox's name; each one is an instance that was made and ended
_BATCH = 50  # names in a filter


@dataclass(slots=True)
class _Attempt:
    """What is known of a launch that may have to be undone."""

    asked: bool = False  # something may have been made
    ended: bool = False  # the operation did, so what it left is to be seen at once


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a list shows of a name, and the zones that it could not reach."""

    found: list[shapes.Reply]
    dark: frozenset[str]


class Fleet:
    """Instances by name, many in one call and in all zones; making one; removing one. `zones` are those to make in."""

    def __init__(self, gce: Gce, clock: Clock, *, waits: Waits, zones: Sequence[str]) -> None:
        self._gce = gce
        self._clock = clock
        self._waits = waits
        self._zones = frozenset(zones)
        self._instances = Lookout(lambda names: self._look("Instances", names), clock=clock, every=waits.find)
        self._polled = Lookout(lambda names: self._look("Instances", names), clock=clock, every=waits.poll)
        self._disks = Lookout(lambda names: self._look("Disks", names), clock=clock, every=waits.find)

    async def launch(self, plan: translate.Plan, place: Place) -> Instance:
        """Make the pod VM in this place, all or nothing."""
        attempt = _Attempt()
        return await all_or_nothing(
            self._whole(plan, place, attempt=attempt), lambda: self._undo(plan, attempt), budget=self._waits.undo
        )

    async def existing(self, plan: translate.Plan) -> shapes.Reply | None:
        """A living instance that was made for this very sandbox before. One that has ended is removed first."""
        name = plan.request.name
        found = await self.see(name)
        if not found:
            return None
        mine = [one for one in found if _belongs(one, plan)]
        if not mine:
            raise _not_ours(name)
        living = [one for one in mine if shapes.state(one) is not InstanceState.STOPPED]
        if not living:
            await self.remove(name)
        return living[0] if living else None

    async def ready(self, plan: translate.Plan, seen: list[shapes.Reply] | None = None) -> Instance:
        """The instance, as soon as it runs and has an address. `seen` is what was just seen of it."""
        public, name = plan.settings[USE_PUBLIC_IP], plan.request.name
        first = [seen] if seen else []

        async def look() -> Instance | None:
            instances = first.pop() if first else await self.see(name)
            found = next((one for one in instances if _belongs(one, plan)), None)
            if found is not None and shapes.state(found) is InstanceState.STOPPED:
                told = found.get("statusMessage") or f"it is {found.get('status')}"
                raise ProviderError(f"the instance {name} ended before it was ready; Compute Engine says: {told}")
            made = shapes.instance(found, public=public) if found is not None else None
            return made if made is not None and made.addresses else None

        what = f"the instance {name} has an address"
        return await until(look, clock=self._clock, limit=self._waits.address, every=self._waits.poll, what=what)

    async def see(self, name: str, *, everywhere: bool = False) -> list[shapes.Reply]:
        """The instances of this name, one a zone; empty when there is none. Shares the call with others.

        Raises `ProviderUnavailable` when there may be one in a zone that could not be reached: one of ours, or with
        `everywhere` any, as settings may have named it before."""
        return self._sure(await self._instances.see(name), everywhere=everywhere)

    def _sure(self, sight: _Sight | None, *, everywhere: bool) -> list[shapes.Reply]:
        if sight is None:
            return []
        return _sure_of(sight, sight.dark if everywhere else sight.dark & self._zones)

    async def remove(self, name: str, *, everywhere: bool = True) -> None:
        """Delete what is ours of this name, and return when instance and root disk are gone.

        What has not our labels is somebody else's, in whatever zone, and stays: `InvalidRequest` when it is all there
        is, for it may have been ours, and would cost money unseen."""
        found = await self.see(name, everywhere=everywhere)
        mine = [one for one in found if shapes.owned(one)]
        if found and not mine:
            raise _not_ours(name)
        if mine:
            zones = frozenset(map(shapes.zone, mine))
            await asyncio.gather(*(self._delete("Instances", one) for one in mine))
            await until(
                lambda: self._is_gone(name, zones),
                clock=self._clock,
                limit=self._waits.gone,
                every=0,
                what=f"the instance {name} is gone",
            )
        await self.remove_disks(name)

    async def remove_disks(self, name: str) -> None:
        """Root disks of ours that nothing uses; a failed insert, or one cut short, may leave them."""
        sight = self._sure(await self._disks.see(name), everywhere=False)
        left = [one for one in sight if shapes.owned(one) and not one.get("users")]
        if left:
            await asyncio.gather(*(self._delete("Disks", one) for one in left))
            what = f"the disk {name} is gone"
            await until(
                lambda: self._disk_is_gone(name),
                clock=self._clock,
                limit=self._waits.gone,
                every=self._waits.poll,
                what=what,
            )

    async def listed(self, service: str, wanted: str) -> list[shapes.Reply]:
        """Everything that a filter selects, in all zones. Raises `ProviderUnavailable` when one was not reached."""
        pages = await self._gce.pages(service, "aggregated_list", filter=wanted)
        if dark := shapes.unreachable(pages):
            raise _unsure(dark)
        return shapes.scoped(pages, service.lower())

    async def _whole(self, plan: translate.Plan, place: Place, *, attempt: _Attempt) -> Instance:
        for generation in range(_GENERATIONS):
            operation = await self._insert(plan, place, generation=generation, attempt=attempt)
            if operation:
                done = await self._done(place.zone, operation, what=plan.request.name)
                attempt.ended = True
                if error := failed("Instances.insert", done):
                    raise error
            if operation == "" or (found := await self._seen(plan.request.name)):
                return await self.ready(plan, found if operation else None)
        raise ProviderError(f"{plan.request.name} was made and removed {_GENERATIONS} times: stop and start the pod")

    async def _insert(self, plan: translate.Plan, place: Place, *, generation: int, attempt: _Attempt) -> str:
        """The operation's name; "" when an instance of ours is there already."""
        made = translate.body(plan, place)
        key = translate.request_id(plan, place, generation=generation)
        attempt.asked, attempt.ended = True, False
        try:
            found = await self._gce.call("Instances", "insert_unary", zone=place.zone, body=made, request_id=key)
        except ProviderError as error:
            if isinstance(error, ProviderUnavailable) and not isinstance(error, Throttled):
                raise
            if str(error).startswith(EXISTS) and await self.existing(plan):
                return ""
            attempt.asked = False
            if isinstance(error, Gone):
                told = "see GCP_NETWORK, GCP_SUBNETWORK, GCP_DISK_TYPE, the machine type and the zone"
                raise Misconfigured(f"{error}; {told}") from error
            raise
        return shapes.operation(found)

    async def _done(self, zone: str, operation: str, *, what: str) -> shapes.Reply:
        """The operation when it has ended, well or not. One long call waits; a lost answer of it means: ask again."""

        lost = ["the operation still runs; if that is often so, name more zones in FALLBACK_ZONES"]

        async def look() -> shapes.Reply | None:
            try:
                found = await self._gce.call("ZoneOperations", "wait", tries=1, zone=zone, operation=operation)
            except ProviderUnavailable as error:
                lost[0] = str(error)
                return None
            return found if found.get("status") == "DONE" else None

        limit, every = self._waits.running, self._waits.poll
        try:
            return await until(look, clock=self._clock, limit=limit, every=every, what=f"the instance {what} is made")
        except ProviderUnavailable as error:
            raise ProviderUnavailable(f"{error}; {lost[0]}") from error

    async def _seen(self, name: str) -> list[shapes.Reply]:
        """The instance of a finished operation; empty when it is gone: a repeated request id tells of one of before."""
        for _ in range(self._waits.looks):
            if found := await self.see(name):
                return found
            await self._clock.sleep(self._waits.poll / 4)
        return []

    async def _undo(self, plan: translate.Plan, attempt: _Attempt) -> None:
        """Remove what was made; after a lost answer a new instance may stay unseen for some seconds."""
        if not attempt.asked:
            return
        for _ in range(1 if attempt.ended else self._waits.looks):
            if await self.see(plan.request.name):
                break
            await self._clock.sleep(0 if attempt.ended else self._waits.poll)
        await self.remove(plan.request.name, everywhere=False)

    async def _delete(self, service: str, found: shapes.Reply) -> None:
        key = {"Instances": "instance", "Disks": "disk"}[service]
        parameters: dict[str, Any] = {"zone": shapes.zone(found), key: str(found["name"])}
        try:
            await self._gce.call(service, "delete_unary", **parameters)
        except Gone:
            return

    async def _is_gone(self, name: str, zones: frozenset[str]) -> bool | None:
        sight = await self._polled.see(name)
        if sight is None:
            return True
        return not any(shapes.zone(one) in zones for one in _sure_of(sight, sight.dark & zones)) or None

    async def _disk_is_gone(self, name: str) -> bool | None:
        return not self._sure(await self._disks.see(name), everywhere=False) or None

    async def _look(self, service: str, names: frozenset[str]) -> Mapping[str, _Sight]:
        wanted, sights = sorted(names), dict[str, _Sight]()
        for at in range(0, len(wanted), _BATCH):
            batch = wanted[at : at + _BATCH]
            filtered = " OR ".join(translate.quoted("name", one) for one in batch)
            pages = await self._gce.pages(service, "aggregated_list", filter=filtered)
            dark = shapes.unreachable(pages)
            sights |= {name: _Sight([], dark) for name in batch}
            for one in shapes.scoped(pages, service.lower()):
                sights[one["name"]].found.append(one)
        return sights


def _sure_of(sight: _Sight, dark: frozenset[str]) -> list[shapes.Reply]:
    if dark and not sight.found:
        raise _unsure(dark)
    return sight.found


def _not_ours(name: str) -> InvalidRequest:
    return InvalidRequest(f"an instance {name} exists and is not ours: remove it, or rename it")


def _unsure(dark: Iterable[str]) -> ProviderUnavailable:
    zones = ", ".join(sorted(dark))
    return ProviderUnavailable(f"Compute Engine does not reach {zones} now, so it cannot tell what is there")


def _belongs(found: shapes.Reply, plan: translate.Plan) -> bool:
    owned = shapes.owned(found)
    return owned is not None and (owned.owner, owned.sandbox) == (plan.request.owner, plan.request.sandbox)
