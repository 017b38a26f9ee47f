"""What a pod does not notice: the node is killed and comes back, the relay is replaced, and its counter counts on."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from caa.testing.demo.daemons import Daemons
from caa.testing.demo.play import Guest, Unexpected

# A line every 10 ms; the shell's own count tells a line that is missing.
_COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
_BETWEEN = 0.3  # seconds of counting before, between and after


@dataclass
class Counter:
    """The lines of a container that counts, as they arrive at the shim."""

    rest: bytes = b""
    last: int = 0
    silence: float = 0.0  # the longest between two arrivals, seconds
    heard: float = field(default_factory=time.monotonic)

    def hear(self, chunk: bytes, is_stderr: bool) -> None:
        """Take a chunk; `Unexpected` is raised by `check`, not here, where nobody would see it."""
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now
        if is_stderr:
            return
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self.last = self.last + 1 if self.last >= 0 and line == b"%d" % (self.last + 1) else -1

    def check(self, when: str, *, beyond: int) -> int:
        """The last number. Raises `Unexpected` when one was missing, doubled or changed, or none came since."""
        if self.last <= beyond:
            raise Unexpected(f"the counter {when}: {'a line is missing' if self.last < 0 else 'it stands still'}")
        return self.last


async def survive(guest: Guest, daemons: Daemons) -> dict[str, Any]:
    """Do both to a pod that counts; what it showed. Raises `Unexpected`."""
    counter = Counter()
    counting = await guest.pod.container("counter", ["/bin/sh", "-c", _COUNT])
    counting.listener = counter.hear
    counter.hear(bytes(counting.stdout), False)
    await counting.output(b"1\n")
    counter.silence = 0.0
    await asyncio.sleep(_BETWEEN)
    before = counter.check("before", beyond=0)
    began = time.monotonic()
    await daemons.kill("node")
    await daemons.start_one("node")
    await daemons.serves("node")
    restarted = time.monotonic() - began
    await asyncio.sleep(_BETWEEN)
    killed = counter.check("after the node was killed", beyond=before)
    replaced = await daemons.replace_relay()
    await asyncio.sleep(_BETWEEN)
    last = counter.check("after the relay was replaced", beyond=killed)
    await guest.pod.stop_container(counting)
    return {
        "node": f"killed with SIGKILL, serves again after {restarted * 1000:.0f} ms",
        "relay": f"replaced by another process after {replaced * 1000:.0f} ms",
        "lines_counted": last,
        "lines_missing": 0,
        "longest_silence_ms": round(counter.silence * 1000),
    }
