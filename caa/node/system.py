"""What the node reads from its machine: the time, which boot this is, and a name for itself."""

import asyncio
import os
import time
import uuid
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


def own_cluster(state_dir: Path) -> str:
    """A cluster name that only this node uses, for an operator who gave none: made once, kept in the state directory.

    One name for all would let two clusters in one cloud account sweep each other's pod VMs when their nodes' names are
    the same. Raises `StateError`.
    """
    path = state_dir / "cluster-id"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(f"node-{uuid.uuid4()}\n")
        try:
            os.link(fresh, path)  # the first one wins, and never half of it
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise StateError(
            f"{path} cannot be kept ({error.strerror}); set CAA_CLUSTER_ID or mend the directory"
        ) from error
