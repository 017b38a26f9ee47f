"""What goes wrong in a fake cloud: planned faults, a limit of calls per second, latency, late visibility."""

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """What becomes of one call."""

    THROTTLED = "throttled"  # refused with Retry-After, nothing done
    UNAUTHORISED = "unauthorised"  # refused, nothing done
    CAPACITY = "capacity"  # no room, nothing done
    QUOTA = "quota"  # the account's limit, nothing done
    TIMEOUT = "timeout"  # nothing done, and no answer ever
    LOST_ANSWER = "lost answer"  # done, and the connection closes before the answer
    MALFORMED = "malformed answer"  # done, and the answer is not what the protocol says
    RESET = "connection reset"  # nothing done


REFUSALS = frozenset({Fault.THROTTLED, Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA})
ALWAYS = 1_000_000


@dataclass
class Faults:
    """What to do to the calls of a fake cloud. `latency` and `visible_after` are in seconds.

    `visible_after` is how long a new resource stays unseen by reads: eventual consistency. `full` are the (type, zone)
    pairs without room; "" is any. `calls_per_second` 0 is no limit; the bucket holds one second's worth.
    """

    latency: float = 0.0
    visible_after: float = 0.0
    retry_after: float = 0.0
    calls_per_second: float = 0.0
    full: set[tuple[str, str]] = field(default_factory=set)
    _plans: dict[str, list[Fault]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tokens: float = 0.0
    _filled_at: float = 0.0

    def plan(self, call: str, fault: Fault, *, times: int = 1) -> None:
        """Let the next `times` calls of this name ("*" for any) go wrong, after those that are planned already."""
        with self._lock:
            self._plans.setdefault(call, []).extend([fault] * min(times, 10_000))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._plans.clear()
            self.full.clear()

    def take(self, call: str) -> Fault | None:
        """What becomes of this call."""
        with self._lock:
            if self._over_the_limit():
                return Fault.THROTTLED
            plan = self._plans.get(call) or self._plans.get("*")
            return plan.pop(0) if plan else None

    def has_room(self, kind: str, zone: str) -> bool:
        """Whether an instance of this type may be made there."""
        return not self.full & {(kind, zone), (kind, ""), ("", zone), ("", "")}

    def _over_the_limit(self) -> bool:
        if not self.calls_per_second:
            return False
        now, most = time.monotonic(), max(1.0, self.calls_per_second)
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self.calls_per_second)
        self._filled_at = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False
