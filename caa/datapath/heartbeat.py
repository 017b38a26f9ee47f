"""Whether a link still lives: how long it has been silent, and when to say something. Pure.

A cut is noticed within 10 s: `LOOK` late to see the last byte, `DEAD_AFTER` of silence, `LOOK` late again.
"""

from __future__ import annotations

LOOK = 1.0
BEAT_AFTER = 3.0
DEAD_AFTER = 8.0
_NEVER = float("-inf")


class Heartbeat:
    """`asks` at the relay's end, which sends a PING into silence and cuts a link that stays silent.

    The forwarder answers. While its agent is slow, so that it does not read its link, it says unasked that it lives.
    """

    __slots__ = ("_asks", "_count", "_dead_after", "_heard", "_last")

    def __init__(self, asks: bool) -> None:
        self._asks = asks
        self.suffer(DEAD_AFTER)
        self.stir()

    def suffer(self, silence: float) -> None:
        """Take so many seconds of silence for the end of the link."""
        self._dead_after = silence

    def stir(self) -> None:
        """Something came that no count tells of, or the link is a new one."""
        self._count = -1
        self._heard = self._last = _NEVER

    def look(self, now: float, count: int, *, reading: bool) -> bool:
        """Notice what was received, by its count; returns whether to say something.

        While we do not read, silence proves nothing.
        """
        if count != self._count or not reading:
            self._count = count
            self._heard = now
        beat_after = self._dead_after * BEAT_AFTER / DEAD_AFTER
        quiet = now - self._heard >= beat_after if self._asks else not reading
        if not quiet or now - self._last < beat_after:
            return False
        self._last = now
        return True

    def dead(self, now: float) -> bool:
        """Whether nothing came for too long."""
        return self._count >= 0 and now - self._heard >= self._dead_after
