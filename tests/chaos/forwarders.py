"""The row in which forwarders are killed inside pod VMs: what a pod may lose by it, and what it may not.

Calls that were under way may end with UNAVAILABLE and are never repeated; an answer that the dead forwarder had not
passed on is lost with it, be it a piece of output. No pod may be lost, nothing may come or be done twice.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

from tests.chaos.field import Field
from tests.chaos.load import Standing
from tests.chaos.report import Outcome

_PROGRAM = b"podvm.forwarder"
_REST = 0.5  # seconds after the last kill, so that the end of the load meets none
_BACK = 10.0


async def kill_forwarders(field: Field, *, times: int, longest: float) -> None:
    """SIGKILL to the forwarder of a standing pod, one after the other, at random moments."""
    chance = field.plan.chance("kills")
    for one in field.standing:
        one.bears_refusals = True
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.02, longest))
        victim = chance.choice(field.standing)
        os.kill(await _forwarder(victim), signal.SIGKILL)
    for one in field.standing:
        await _forwarder(one)
    await asyncio.sleep(_REST)
    field.outcome.done = {"kill -9 of a forwarder": times}


async def _forwarder(one: Standing) -> int:
    """The process in that pod VM; waits for one that is being started again. Raises `TimeoutError`."""
    end = time.monotonic() + _BACK
    while not (found := await asyncio.to_thread(_find, one.instance)):
        if time.monotonic() > end:
            raise TimeoutError(f"no forwarder in {one.instance} within {_BACK:g} s")
        await asyncio.sleep(0.02)
    return found


def _find(instance: str) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if _PROGRAM in (folder / "cmdline").read_bytes() and f"/{instance}" in (folder / "cgroup").read_text():
                return int(folder.name)
        except OSError:
            continue  # it has ended meanwhile
    return 0


def judge(outcome: Outcome, field: Field) -> None:
    """Say apart what may be lost: output on its way at the kill. What came twice is a fault."""
    log = field.paths.log("relay").read_text()
    begun = log.count("session begun anew")
    if not begun:
        outcome.problems.append("the relay has not begun a session anew: nothing was tried")
    outcome.figures |= {
        "sessions begun anew": begun,
        "calls ended with UNAVAILABLE": sum(one.refused for one in field.standing),
        "of these WriteStdin, which ended the stdin of one process": sum(one.deaf for one in field.standing),
        "lines lost on their way": outcome.lines_lost,
        "lines cut by such a loss": outcome.lines_changed,
    }
    outcome.lines_lost = outcome.lines_changed = 0
