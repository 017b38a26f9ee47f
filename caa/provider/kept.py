"""What a cloud said of something, believed for a while: an image, a zone, a tag. Nothing else lives here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from caa.provider.clock import Clock

T = TypeVar("T")

KEPT = 300.0  # seconds that an answer is believed


class Kept(Generic[T]):
    """Answers by name; those who ask for the same at once ask together, an error is told them and not kept."""

    def __init__(self, ask: Callable[[str], Awaitable[T]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, tuple[float, asyncio.Future[T]]] = {}

    async def get(self, name: str) -> T:
        """The answer. Raises what `ask` raises."""
        kept = self._known.get(name)
        if kept is None or self._is_old(*kept):
            # Pods name images: what nobody named for a while is forgotten.
            self._known = {one: known for one, known in self._known.items() if not self._is_old(*known)}
            kept = self._known[name] = (self._clock.now(), asyncio.ensure_future(self._ask(name)))
            kept[1].add_done_callback(_has_failed)  # whoever asked may be gone when it fails
        return await asyncio.shield(kept[1])

    def _is_old(self, since: float, answer: asyncio.Future[T]) -> bool:
        return self._clock.now() - since > KEPT or _has_failed(answer)


def _has_failed(answer: asyncio.Future[T]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
