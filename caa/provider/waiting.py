"""Waiting for a cloud: poll until, look at many things in one call, run to the end, make all or nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

import structlog

from caa.errors import CaaError, ProviderUnavailable
from caa.provider.clock import Clock

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def until(
    look: Callable[[], Awaitable[T | None]], *, clock: Clock, limit: float, what: str, every: float = 1.0
) -> T:
    """Ask `look` every so many seconds until it does not answer None.

    Raises `ProviderUnavailable` after `limit` seconds, saying that `what` did not happen. May be cancelled at any
    moment; the caller's own deadline is a cancellation.
    """
    end = clock.now() + limit
    while (found := await look()) is None:
        if clock.now() + every > end:
            raise ProviderUnavailable(f"{what}: not after {limit:g} s")
        await clock.sleep(every)
    return found


class Lookout(Generic[T]):
    """Many waiters, one call: who asks within `every` seconds is answered by the same look at the cloud.

    `look` gets all the ids and returns what exists of them. A hundred pods that start at once then cost one call a
    second, not a hundred.
    """

    def __init__(
        self, look: Callable[[frozenset[str]], Awaitable[Mapping[str, T]]], *, clock: Clock, every: float
    ) -> None:
        self._look = look
        self._clock = clock
        self._every = every
        self._asked: set[str] = set()
        self._round: asyncio.Task[Mapping[str, T]] | None = None

    async def see(self, name: str) -> T | None:
        """What is called `name`, seen after this call began; None where there is nothing. Raises what `look` raises."""
        if self._round is None:
            self._round = asyncio.ensure_future(self._look_once())
        self._asked.add(name)
        return (await asyncio.shield(self._round)).get(name)

    async def _look_once(self) -> Mapping[str, T]:
        await self._clock.sleep(self._every)
        asked, self._asked, self._round = frozenset(self._asked), set(), None
        return await self._look(asked)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even when the caller is cancelled: only then it is known what it did.

    The cancellation is raised afterwards. What a thread does cannot be stopped anyway.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen; the cancellation is what the caller gets
        raise


async def all_or_nothing(
    make: Coroutine[Any, Any, T], undo: Callable[[], Coroutine[Any, Any, None]], *, budget: float
) -> T:
    """What `make` makes; when it fails or is cancelled, run `undo` for at most `budget` seconds and raise.

    `undo` cannot be cancelled from outside. What it could not remove is left to the sweep, which finds it by its tags.
    """
    try:
        return await make
    except BaseException:
        await to_the_end(_undone(undo, budget))
        raise


async def _undone(undo: Callable[[], Coroutine[Any, Any, None]], budget: float) -> None:
    try:
        async with asyncio.timeout(budget):
            await undo()
    except (CaaError, TimeoutError) as error:
        _log.warning("a failed create could not be undone at once; the sweep removes it", error=str(error))
