"""Instances that carry this node's tags and that no record knows: finding them is pure, removing them a sweep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from caa.errors import ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import Instance, Owner
from caa.model.sandbox import Sandbox
from caa.provider.contract import Provider
from caa.sandbox.ports import Clock, StateStore

log = structlog.get_logger(__name__)


def unknown(instances: Iterable[Instance], records: Sequence[Sandbox]) -> list[Instance]:
    """The instances that no record claims, by id, by name or by sandbox; a start whose answer is still out claims
    its instance by name."""
    ids = {one.instance for one in records}
    names = {one.instance_name for one in records}
    sandboxes = {one.id for one in records}
    return [one for one in instances if one.id not in ids and one.name not in names and one.sandbox not in sandboxes]


def old_enough(instance: Instance, *, now: float, first_seen: float, grace: float) -> bool:
    """Whether an instance is older than `grace` seconds; where the cloud tells no age, since we first saw it."""
    return now - (instance.created_at or first_seen) >= grace


@dataclass(slots=True, kw_only=True)
class Sweep:
    """Removes orphans older than `grace` seconds (GC_GRACE_PERIOD, 10 min). Only ever asks for this owner's instances,
    so another node's or cluster's are out of reach."""

    provider: Provider
    store: StateStore
    owner: Owner
    clock: Clock
    grace: float = 600.0
    _first_seen: Mapping[InstanceId, float] = field(default_factory=dict)

    async def once(self) -> int:
        """One sweep; returns how many instances were removed. Raises what `list_owned` and the store raise.

        The cloud is asked before the store: every instance of ours has had its record before it was made.
        """
        instances = await self.provider.list_owned(self.owner)
        orphans = unknown(instances, await self.store.all())
        now = self.clock.wall()
        self._first_seen = {one.id: self._first_seen.get(one.id, now) for one in orphans}
        removed = 0
        for one in orphans:
            if old_enough(one, now=now, first_seen=self._first_seen[one.id], grace=self.grace):
                removed += await self._remove(one)
        return removed

    async def _remove(self, orphan: Instance) -> int:
        log.warning("removing an instance that no sandbox knows", instance=orphan.name, id=orphan.id)
        try:
            await self.provider.delete(orphan.id)
        except ProviderError as error:  # the next sweep tries again
            log.error("the orphan was not removed", instance=orphan.name, error=str(error))
            return 0
        return 1
