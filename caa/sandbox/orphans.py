"""Instances that carry this node's tags and that no record knows: finding them is pure, removing them a sweep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import structlog

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator says about sweeps (ENABLE_GC, GC_INTERVAL, GC_GRACE_PERIOD, GC_DRY_RUN); times in seconds."""

    enabled: bool = True
    interval: float = 1800.0
    grace: float = 600.0
    dry_run: bool = False


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one sweep found: instances with our tags, those that no record knows, and what became of these."""

    owned: int = 0
    orphans: int = 0
    young: int = 0
    removed: int = 0
    failed: int = 0


@dataclass(slots=True, kw_only=True)
class Sweep:
    """Removes orphans that are old enough. Only ever asks for this owner's instances, so another node's or cluster's
    are out of reach. `rules` may change at any time."""

    provider: Provider
    store: StateStore
    owner: Owner
    clock: Clock
    rules: Rules = Rules()
    _first_seen: Mapping[InstanceId, float] = field(default_factory=dict)

    async def once(self) -> Counts:
        """One sweep. Raises what `list_owned` and the store raise.

        The cloud is asked before the store: every instance of ours has had its record before it was made.
        """
        instances = await self.provider.list_owned(self.owner)
        orphans = unknown(instances, await self.store.all())
        now = self.clock.wall()
        self._first_seen = {one.id: self._first_seen.get(one.id, now) for one in orphans}
        counts = Counts(owned=len(instances), orphans=len(orphans))
        for one in orphans:
            if old_enough(one, now=now, first_seen=self._first_seen[one.id], grace=self.rules.grace):
                await self._remove(one, counts)
            else:
                counts.young += 1
        log.info("swept for orphans", dry_run=self.rules.dry_run, **asdict(counts))
        return counts

    async def _remove(self, orphan: Instance, counts: Counts) -> None:
        if self.rules.dry_run:
            log.warning("would remove an instance that no sandbox knows", instance=orphan.name, id=orphan.id)
            return
        log.warning("removing an instance that no sandbox knows", instance=orphan.name, id=orphan.id)
        try:
            await self.provider.delete(orphan.id)
            counts.removed += 1
        except Exception as error:  # whatever a driver raises, the others are looked at; the next sweep tries again
            log.error("the orphan was not removed", instance=orphan.name, error=f"{type(error).__name__}: {error}")
            counts.failed += 1
