"""A cloud's instance types: fetched once, kept on disk, served old while they are fetched again."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from caa.errors import ProviderError
from caa.model.instance import Arch, InstanceType, Tee
from caa.provider.clock import Clock

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where a catalogue is kept, how old it may get (seconds), and what it is about (cloud, region, types).

    A file whose subject is another one is not read.
    """

    path: Path
    ttl: float
    subject: str


class Catalogue:
    """The instance types of one cloud, for one driver."""

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[InstanceType]]], shelf: Shelf, *, clock: Clock) -> None:
        self._fetch = fetch
        self._shelf = shelf
        self._clock = clock
        self._types: tuple[InstanceType, ...] | None = None
        self._fetched_at = 0.0
        self._fetching: asyncio.Task[tuple[InstanceType, ...]] | None = None

    async def types(self) -> Sequence[InstanceType]:
        """The types, at once when they are known. Raises what `fetch` raises only when there are none, old or new."""
        if self._types is None:
            await asyncio.to_thread(self._read)
        if self._types is None:
            return await asyncio.shield(self._fresh())
        if self._clock.wall() - self._fetched_at > self._shelf.ttl:
            self._fresh().add_done_callback(_told)
        return self._types

    async def settled(self) -> None:
        """Return when nothing is being fetched."""
        if self._fetching is not None:
            await asyncio.wait({self._fetching})

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def _fresh(self) -> "asyncio.Task[tuple[InstanceType, ...]]":
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(self._fetch_once())
        return self._fetching

    async def _fetch_once(self) -> tuple[InstanceType, ...]:
        types = tuple(await self._fetch())
        self._types, self._fetched_at = types, self._clock.wall()
        await asyncio.to_thread(self._write)
        return types

    def _read(self) -> None:
        try:
            kept = json.loads(self._shelf.path.read_text())
            if kept["subject"] == self._shelf.subject:
                self._types = tuple(_from_json(one) for one in kept["types"])
                self._fetched_at = float(kept["fetched_at"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the kept catalogue is not readable, it is fetched again", error=type(error).__name__)

    def _write(self) -> None:
        types = [_to_json(one) for one in self._types or ()]
        text = json.dumps({"subject": self._shelf.subject, "fetched_at": self._fetched_at, "types": types})
        fresh = self._shelf.path.with_suffix(".new")
        try:
            self._shelf.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text)
            fresh.replace(self._shelf.path)
        except OSError as error:
            _log.warning("the catalogue cannot be kept", path=str(self._shelf.path), error=str(error))


def _told(task: "asyncio.Task[tuple[InstanceType, ...]]") -> None:
    """The old types go on serving; a mistake of ours is logged by its type alone."""
    if not task.cancelled() and (error := task.exception()) is not None:
        text = str(error) if isinstance(error, ProviderError) else type(error).__name__
        _log.warning("the catalogue could not be fetched again, the old one serves", error=text)


def _to_json(one: InstanceType) -> dict[str, Any]:
    return {
        "name": one.name,
        "vcpus": one.vcpus,
        "memory_mib": one.memory_mib,
        "gpus": one.gpus,
        "arch": one.arch,
        "tees": sorted(one.tees),
        "zones": sorted(one.zones),
        "price": one.price,
    }


def _from_json(kept: dict[str, Any]) -> InstanceType:
    return InstanceType(
        name=str(kept["name"]),
        vcpus=int(kept["vcpus"]),
        memory_mib=int(kept["memory_mib"]),
        gpus=int(kept["gpus"]),
        arch=Arch(kept["arch"]),
        tees=frozenset(Tee(one) for one in kept["tees"]),
        zones=frozenset(map(str, kept["zones"])),
        price=None if kept["price"] is None else float(kept["price"]),
    )
