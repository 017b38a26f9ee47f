"""What is alive in a fake cloud, and what it costs: what a real one would send a bill for, whoever asked for it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One living thing: its kind ("instance", "volume", "address"), id, price per hour, tags."""

    kind: str
    id: str
    cost: float
    tags: Mapping[str, str] = field(default_factory=dict)
    born: float = field(default_factory=time.monotonic)


class Ledger:
    """Everything alive, by kind and id. `made` counts all that ever was, by kind."""

    def __init__(self) -> None:
        self._alive: dict[tuple[str, str], Resource] = {}
        self._lock = threading.Lock()
        self.made: dict[str, int] = {}

    def add(self, resource: Resource) -> None:
        """It exists from now on; adding it again changes its tags and price."""
        with self._lock:
            if (resource.kind, resource.id) not in self._alive:
                self.made[resource.kind] = self.made.get(resource.kind, 0) + 1
            self._alive[resource.kind, resource.id] = resource

    def remove(self, kind: str, name: str) -> None:
        """It exists no more; absent is well."""
        with self._lock:
            self._alive.pop((kind, name), None)

    def alive(self, kind: str = "") -> list[Resource]:
        """What exists, of one kind or of all."""
        with self._lock:
            return [one for one in self._alive.values() if kind in ("", one.kind)]

    def cost_per_hour(self) -> float:
        """What all of it costs."""
        return sum(one.cost for one in self.alive())

    def __bool__(self) -> bool:
        return bool(self.alive())

    def __str__(self) -> str:
        lines = [f"{one.kind} {one.id} {one.cost:.4f}/h {dict(one.tags)}" for one in self.alive()]
        return "\n".join([*lines, f"{len(lines)} alive, {self.cost_per_hour():.4f} per hour"])
