"""The load of one standing pod: numbered lines both ways, a loop of execs that count, everything checked."""

import asyncio
import random
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError
from caa.model.ids import SandboxId, instance_name
from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.process import Process
from caa.testing.shim.shim import Shim
from tests.chaos.lines import Lines

# Fifty lines in one write, five times a second; told to end it says how many there were.
COUNTER = r"""
trap 'over=1' TERM
i=0
while [ -z "$over" ]; do
  n=0; text=
  while [ $n -lt 50 ]; do i=$((i+1)); n=$((n+1)); text="${text}out $i
"; done
  printf %s "$text"
  usleep 200000
done
echo "last $i"; exit 7
"""
# Checks what comes in by itself, so that a fault on the way in is told from one on the way out.
MIRROR = r"""
{ if ($0 == "in " NR) print "back " NR; else print "wrong " NR ": " $0; if (NR % 10 == 0) fflush() }
END { print "end " NR; exit 5 }
"""
# Appends before it answers: a command that ran twice or not at all shows in the next answer.
TALLY = 'echo >> /tally; wc -l < /tally; wc -c; exit "$0"'
SERVE = ["/bin/nc", "-l", "-p", "9000", "-e", "/bin/seq", "1", "2000000000"]
FIRST_PLACE = 10  # the last byte of the first standing pod's address
_END = 90.0  # seconds for a stream to come to its end


@dataclass
class Stream:
    """A process whose output is a stream of numbered lines; what was checked is not kept."""

    process: Process
    lines: Lines
    longest: float = 0.0  # seconds without a chunk
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.process.listener = self._hear
        self._hear(bytes(self.process.stdout), False)

    def _hear(self, chunk: bytes, is_stderr: bool) -> None:
        if is_stderr:
            return  # the shell says there which of its children was ended
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now
        self.lines.feed(chunk)
        self.process.stdout.clear()

    async def ended(self, code: int) -> str:
        """What is wrong with the exit code."""
        async with asyncio.timeout(_END):
            found = await self.process.wait()
        return "" if found == code else f"{self.lines.word.decode()}: exit code {found} instead of {code}"


@dataclass
class Standing:
    """A pod that must outlive everything, and its load."""

    address: str
    pod: Pod
    counter: Stream
    mirror: Stream
    chance: random.Random
    wrong: list[str] = field(default_factory=list)
    execs: int = 0
    longest_exec: float = 0.0
    written: int = 0
    bears_refusals: bool = False  # calls may end with UNAVAILABLE because they are not repeated, output may be lost
    refused: int = 0
    _unsure: int = 0
    deaf: bool = False  # a refused WriteStdin has ended the mirror's stdin, as the shims do it
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._guarded(loop)) for loop in (self._write(), self._execute())]

    @property
    def name(self) -> str:
        return self.pod.options.name

    @property
    def instance(self) -> str:
        return instance_name(self.name, SandboxId(self.pod.sandbox_id))

    async def finish(self) -> None:
        """End the load, then both streams by their own last words, then the pod."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        if not self.pod.failed.is_set():
            await self._guarded(self._close())
        await self._guarded(self._stop())

    def problems(self) -> Iterator[str]:
        if self.pod.failed.is_set():
            yield f"{self.name}: the pod was lost: {self.pod.failure}"
        found = list(self.wrong)
        for stream in (self.counter, self.mirror):
            found += [] if self.bears_refusals and not stream.lines.doubled else stream.lines.problems()
        yield from (f"{self.name} ({self.pod.kind}): {one}" for one in found)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (CaaError, TimeoutError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return

    async def _write(self) -> None:
        while not self._over.is_set():
            numbers = range(self.written + 1, self.written + 21)
            try:
                await self.mirror.process.write(b"".join(b"in %d\n" % number for number in numbers))
            except CaaError as error:
                self._bear(error)
                self.deaf = True
                return
            self.written += len(numbers)
            await self._pause(0.2)

    def _bear(self, error: CaaError) -> None:
        """A refusal that is borne is counted; every other error goes on."""
        if not self.bears_refusals or "is not repeated" not in str(error):
            raise error
        self.refused += 1

    async def _execute(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                await self._execute_one(self.chance.randrange(60_000), self.chance.randrange(200))
            except CaaError as error:
                self._bear(error)
                self._unsure += 1
            self.longest_exec = max(self.longest_exec, time.monotonic() - began)
            await self._pause(self.chance.uniform(0.5, 3))

    async def _execute_one(self, size: int, code: int) -> None:
        result = await self.pod.exec(self.counter.process, ["/bin/sh", "-c", TALLY, str(code)], stdin=b"x" * size)
        self.execs += 1
        count = result.stdout.split()[:1]
        for _ in range(self._unsure):  # a refused one may have been carried out, once
            if count != [b"%d" % self.execs]:
                self.execs += 1
                self._unsure -= 1
        found, wanted = (result.stdout.split(), result.exit_code), ([b"%d" % self.execs, b"%d" % size], code)
        if found != wanted:
            self.wrong.append(f"exec {self.execs}: {found} instead of {wanted}")

    async def _close(self) -> None:
        await self.counter.process.signal()
        await self.mirror.process.close_stdin()
        codes = [await self.counter.ended(7), await self.mirror.ended(5)]
        self.wrong += [one for one in codes if one]
        if self.mirror.lines.total != self.written and not self.bears_refusals:
            self.wrong.append(f"{self.written} lines went in, the container counted {self.mirror.lines.total}")

    async def _stop(self) -> None:
        await self.pod.stop()
        self.wrong += [f"StopVM: {error}" for error in self.pod.stop_errors]
        await asyncio.to_thread(world.detach, self.name)


async def start_pod(hypervisor: Path, name: str, *, place: int, kind: Kind) -> Pod:
    """A pod in a network namespace of its own; its address on the bridge ends with `place`."""
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{place}")
    options = PodOptions(name=name, namespace="chaos", netns=str(world.NETNS / name))
    return await Shim(str(hypervisor), kind).start(options)


async def stand(hypervisor: Path, number: int, *, chance: random.Random) -> Standing:
    """Start a pod and its load; even numbers are the Go shim's, odd ones runtime-rs's."""
    pod = await start_pod(hypervisor, f"pod{number}", place=number + FIRST_PLACE, kind=list(Kind)[number % 2])
    counter = Stream(await pod.container("counter", ["/bin/sh", "-c", COUNTER]), Lines(b"out", b"last"))
    mirror = Stream(await pod.container("mirror", ["/bin/awk", MIRROR]), Lines(b"back", b"end"))
    one = Standing(f"{world.SUBNET}.{number + FIRST_PLACE}", pod, counter, mirror, chance)
    one.begin()
    return one
