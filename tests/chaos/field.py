"""The place of one row: daemons, standing pods under load, visitors; at its end everything is checked and gone."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError
from caa.testing.demo import world
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.demo.scenario import DAEMONS_OWN, Stage
from tests.chaos.load import Standing, stand
from tests.chaos.report import Outcome
from tests.chaos.visitors import Visitors

_AT_ONCE = 4  # standing pods that start at the same time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the row is, and what its chances are drawn from."""

    folder: Path
    environ: Mapping[str, str]
    seed: int
    pods: int
    lanes: int = 2
    provider: str = "local"

    def chance(self, name: str) -> random.Random:
        """A sequence of its own for each part, so that their timing does not mix their draws."""
        return random.Random(f"{self.seed}/{name}")


@dataclass
class Field:
    """What a row acts on."""

    plan: Plan
    paths: Paths
    daemons: Daemons
    stage: Stage
    outcome: Outcome
    visitors: Visitors
    standing: list[Standing] = field(default_factory=list)

    async def populate(self) -> None:
        """Start the standing pods and their load."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                made = await stand(self.paths.hypervisor, number, chance=self.plan.chance(f"pod{number}"))
                self.standing.append(made)

        await asyncio.gather(*(one(number) for number in range(self.plan.pods)))
        self.stage.groups += await asyncio.to_thread(world.groups_of, self.standing[0].instance)

    async def finish(self) -> None:
        """End the load and judge it."""
        await self.visitors.finish()
        self.outcome.pods_lost += sum(one.pod.failed.is_set() for one in self.standing)
        await asyncio.gather(*(one.finish() for one in self.standing))
        self._judge()

    def _judge(self) -> None:
        outcome = self.outcome
        streams = [stream for one in self.standing for stream in (one.counter, one.mirror)]
        outcome.lines_lost = sum(one.lines.lost for one in streams)
        outcome.lines_doubled = sum(one.lines.doubled for one in streams)
        outcome.lines_changed = sum(one.lines.changed for one in streams)
        outcome.calls_wrong = sum(len(one.wrong) for one in self.standing) + len(self.visitors.wrong)
        outcome.problems += [line for one in self.standing for line in one.problems()] + self.visitors.wrong
        outcome.figures |= {
            "standing pods": len(self.standing),
            "lines out, each once and in order": sum(one.counter.lines.count for one in self.standing),
            "lines in and back": sum(one.mirror.lines.count for one in self.standing),
            "execs": sum(one.execs for one in self.standing),
            "longest exec (s)": round(max(one.longest_exec for one in self.standing), 2),
            "longest silence of a stream (s)": round(max(one.longest for one in streams), 2),
        }
        if self.visitors.lanes:
            outcome.figures |= {
                "pods that came and went": self.visitors.finished,
                "longest start of one (s)": round(self.visitors.longest_start, 2),
                "longest stop of one (s)": round(self.visitors.longest_stop, 2),
            }


@asynccontextmanager
async def opened(plan: Plan, outcome: Outcome) -> AsyncIterator[Field]:
    """Daemons up; the row populates and finishes the field. Afterwards nothing may be left, and nothing stays."""
    paths = Paths(plan.folder)
    stage = Stage(paths)
    before = await stage.look()
    daemons = Daemons(paths, plan.provider, plan.environ)
    began = time.monotonic()
    try:
        await daemons.start()
        ready = await stage.look()
        yield Field(plan, paths, daemons, stage, outcome, Visitors(paths.hypervisor, plan.lanes))
        outcome.left_over = await stage.settled(ready, ignore=("processes", *DAEMONS_OWN))
        outcome.problems += [
            f"caa {name} ended by itself with {process.returncode}"
            for name, process in daemons.running.items()
            if process.returncode is not None
        ]
    except (CaaError, TimeoutError, OSError, AssertionError) as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
    finally:
        await daemons.stop()
    outcome.left_over |= await stage.settled(before) if not outcome.left_over else {}
    outcome.seconds = round(time.monotonic() - began, 1)
