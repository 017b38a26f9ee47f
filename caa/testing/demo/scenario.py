"""The demo in order: look, start the daemons, run the pods, stop everything, look again, say what is left."""

import asyncio
import contextlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from caa.testing.demo import clouds, play, report, world
from caa.testing.demo.clouds import Cloud
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.demo.report import Result
from caa.testing.demo.survive import survive
from caa.testing.shim.kinds import Kind

# What the daemons keep while they run; the node installs its rules after it has begun to serve.
DAEMONS_OWN = ("nft_rules",)
INTERRUPTED = "interrupted"
_SETTLE = 30.0  # seconds: StopVM is answered once it is durable, the teardown goes on behind it


@dataclass(frozen=True)
class Plan:
    """What the command line asked for."""

    folder: Path
    environ: Mapping[str, str]
    keep: bool = False
    quiet: bool = False
    pods: int = 1
    provider: str = "local"
    image: Path | None = None
    shim: Kind = Kind.GO

    def say(self, *lines: str) -> None:
        if not self.quiet:
            for line in lines:
                click.echo(line)


@dataclass
class Stage:
    """Where a left-over could be, and which empty folders the parts keep for the next pod."""

    paths: Paths
    groups: list[Path] = field(default_factory=list)
    cloud: Cloud = field(default_factory=Cloud)

    async def look(self) -> world.Snapshot:
        folders = [self.paths.pods, self.paths.vms, self.paths.state / "stops", *self.cloud.folders]
        places = world.Places(folders, self.paths.state / "node.db", self.groups)
        return await asyncio.to_thread(world.snapshot, places)

    async def settled(
        self, earlier: world.Snapshot, ignore: Sequence[str] = (), *, daemons: Daemons | None = None
    ) -> dict[str, list[str]]:
        """What is left over once nothing changes any more, or after the bound.

        Without the kinds in `ignore`, and without the daemons that run now: others may have run earlier.
        """
        end = time.monotonic() + _SETTLE
        while True:
            found = (await self.look()).more_than(earlier)
            left = {kind: lines for kind, lines in found.items() if kind not in ignore}
            if daemons is not None and "processes" in left:
                ours = {str(process.pid) for process in daemons.running.values()}
                left["processes"] = [line for line in left["processes"] if line.split()[0] not in ours]
            left["files"] = sorted(set(left.get("files", ())) - self._kept())
            left = {kind: lines for kind, lines in left.items() if lines}
            if not left or time.monotonic() > end:
                return left
            await asyncio.sleep(0.05)

    def _kept(self) -> set[str]:
        state = self.paths.vms
        mine = (
            *self.cloud.folders,
            self.paths.pods,
            self.paths.state / "stops",
            state,
            state / "lock",
            state / "vms",
            state / "addresses",
        )
        return {str(path) for path in mine}


async def run(plan: Plan) -> Result:
    """Never raises for a pod that fails: the result says what went wrong. Cancelled, it removes everything too."""
    try:
        result = await _run(plan)
    except asyncio.CancelledError:
        await asyncio.to_thread(world.clear, Paths(plan.folder).vms / "vms")
        await asyncio.sleep(0.2)  # for the loop to hear of the children that are gone
        result = Result(provider=plan.provider, pods=plan.pods, error=INTERRUPTED)
    with contextlib.suppress(OSError):  # the terminal may be gone
        plan.say(*report.verdict(result))
    return result


async def _run(plan: Plan) -> Result:
    result = Result(provider=plan.provider, pods=plan.pods)
    stage = Stage(Paths(plan.folder))
    await asyncio.to_thread(world.prepare)
    daemons = Daemons(stage.paths, plan.provider, plan.environ)
    try:
        async with clouds.opened(plan.provider, stage.paths, image=plan.image, environ=plan.environ) as cloud:
            await _with_cloud(plan, daemons, cloud=cloud, stage=stage, result=result)
    except Exception as error:  # the cloud itself
        result.error = result.error or f"{type(error).__name__}: {error}"
    result.ok = not result.error and not result.left_over
    return result


async def _with_cloud(plan: Plan, daemons: Daemons, *, cloud: Cloud, stage: Stage, result: Result) -> None:
    """Run the daemons; they end before the cloud does."""
    stage.cloud = cloud
    daemons.environ = cloud.environ
    before = await stage.look()
    try:
        await daemons.start()
        await _judged(plan, daemons, stage=stage, result=result)
    except Exception as error:  # whatever went wrong is told, and the daemons must not stay
        result.error = f"{type(error).__name__}: {error}"
        result.logs = _logs(stage.paths)
        plan.say(*result.logs)
    finally:
        await daemons.stop()
    if not result.left_over:
        result.left_over = await stage.settled(before)
    if left := await asyncio.to_thread(cloud.left):
        result.left_over |= {"cloud": list(left)}


async def _judged(plan: Plan, daemons: Daemons, *, stage: Stage, result: Result) -> None:
    """Run the pods and look for what they left; not when it is cancelled, for then everything is cleared."""
    ready = await stage.look()
    try:
        await daemons.unharmed(_pods(plan, daemons, stage=stage, result=result))
    except Exception:
        result.left_over = await stage.settled(ready, DAEMONS_OWN, daemons=daemons)
        raise
    result.left_over = await stage.settled(ready, DAEMONS_OWN, daemons=daemons)


async def _pods(plan: Plan, daemons: Daemons, *, stage: Stage, result: Result) -> None:
    plan.say(f"Starting {plan.pods} pod(s) with the {plan.provider} provider, as the {plan.shim} shim does ...")
    began = time.perf_counter()
    paths = stage.paths
    guests = await asyncio.gather(
        *(play.begin(paths, number, kind=plan.shim, cloud=stage.cloud) for number in range(plan.pods))
    )
    result.timings_ms["all_started"] = round((time.perf_counter() - began) * 1000, 1)
    for guest in guests:
        stage.groups += await asyncio.to_thread(world.groups_of, guest.machine)
    first = guests[0].played
    plan.say("", "The start, from CreateVM (begin, length):", *report.waterfall(first.spans), "")
    try:
        await asyncio.gather(*(play.use(guest, paths, cloud=stage.cloud) for guest in guests))
        plan.say(*report.facts("What the pod showed:", {**first.exec, **first.network}), "")
        result.survived = await survive(guests[0], daemons)
        plan.say(*report.facts("What the pod did not notice, counting a line every 10 ms:", result.survived), "")
        if plan.keep:
            await _keep(plan, paths=paths, guest=guests[0])
    finally:
        await asyncio.gather(*(play.end(guest) for guest in guests))
    times = first.timings_ms
    plan.say(f"Removed: StopVM answered after {times['stop']:.0f} ms; the exec had taken {times['exec']:.0f} ms.", "")
    result.exec, result.network = first.exec, first.network
    result.timings_ms |= first.timings_ms
    result.timings_ms["total"] = round((time.perf_counter() - began) * 1000, 1)
    result.timings_ms |= {span.name: round(span.length_ms, 1) for span in first.spans}


async def _keep(plan: Plan, *, paths: Paths, guest: play.Guest) -> None:
    """Wait for Ctrl-C; the socket's path is valid outside the demo's namespaces too."""
    socket = paths.pods / guest.pod.sandbox_id / "agent.ttrpc"
    plan.say(
        "The pod runs until Ctrl-C. In another terminal, as root:",
        f"  {_execute(socket, guest)} /bin/sh",
        f"  {_execute(socket, guest)} wget -q -O - http://127.0.0.1/",
    )
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:  # the way it is meant to end
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()


def _execute(socket: Path, guest: play.Guest) -> str:
    python = shlex.quote(sys.executable)
    return f"{python} -m caa.testing.shim exec {socket} {guest.web.container} --"


def _logs(paths: Paths) -> list[str]:
    """The end of every log and console, for a demo that failed."""
    lines = []
    for path in (paths.log("cloud"), paths.log("relay"), paths.log("node"), *paths.vms.glob("*/*/console*")):
        if path.is_file():
            lines += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
    return lines
