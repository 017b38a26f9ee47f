"""What the node reads from its machine: the time, and which boot this is."""

import asyncio
import time
from pathlib import Path

from caa.errors import StateError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """`Clock` of production."""

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def boot_id(path: Path = _BOOT_ID) -> str:
    """The kernel's name of this boot; raises `StateError`."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise StateError(f"{path} cannot be read, so records of an earlier boot cannot be told: {error}") from error
