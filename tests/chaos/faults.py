"""The row of driver faults: every fault x every call, with a real node process, and moments at which it is killed.

`console` is left out: the node never calls it. So is `state`, which makes and removes nothing: the faults of that one
are in `tests/unit/sandbox/test_outages.py`.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from caa.errors import CaaError
from caa.testing.demo import world
from caa.testing.faulty import Fault
from caa.testing.shim import requests
from caa.testing.shim.hypervisor_link import HypervisorLink
from caa.testing.shim.kinds import Kind, PodOptions, habits
from caa.testing.shim.link import Stopwatch
from caa.testing.shim.pod import Pod
from caa.testing.shim.process import Process
from tests.chaos import faulty_driver
from tests.chaos.faulty_driver import plan, planned
from tests.chaos.field import Field, Plan, opened
from tests.chaos.load import FIRST_PLACE, start_pod
from tests.chaos.report import Outcome

START_TIMEOUT = "3s"  # of the starts whose driver never answers
HANGING = (Fault.TIMEOUT, Fault.SILENT)
OF_A_CALL = tuple(fault for fault in Fault if fault is not Fault.HALF_MADE)  # which only a create can be
ANSWERED = tuple(fault for fault in OF_A_CALL if fault not in HANGING)
_SERVES = '"event": "caa node serves"'
_LISTED = '"act": "list_owned"'
TOLD = {
    Fault.THROTTLED: "injected: request limit exceeded",
    Fault.CAPACITY: "injected: no room in this zone",
    Fault.REFUSED: "injected: the cloud says no",
    Fault.TIMEOUT: "the deadline of StartVM passed",
    Fault.SILENT: "the deadline of StartVM passed",
    Fault.LOST_ANSWER: "injected: the connection closed before the answer came",
    Fault.HALF_MADE: "injected: the connection closed before the answer came",
    Fault.BROKEN: "ZeroDivisionError: injected: a mistake in the driver",
}


@dataclass
class Guest:
    """A sandbox of which only the hypervisor's calls are made. `sized` pods ask for numbers of CPUs."""

    site: "Site"
    name: str
    place: int
    kind: Kind
    sized: bool = False
    sandbox: str = field(default_factory=lambda: os.urandom(32).hex())

    def __post_init__(self) -> None:
        self.link = HypervisorLink(str(self.site.field.paths.hypervisor), habits(self.kind), watch=Stopwatch())

    async def start(self) -> None:
        await asyncio.to_thread(world.attach, self.name, f"{world.SUBNET}.{self.place}")
        sizes = {"default_vcpus": "2"} if self.sized else {}
        options = PodOptions(name=self.name, namespace="chaos", netns=str(world.NETNS / self.name), hypervisor=sizes)
        await self.link.create(requests.create_vm(options, self.sandbox, habits=habits(self.kind)))
        await self.link.start(self.sandbox)

    async def stop(self) -> None:
        await self.link.stop(self.sandbox)
        await self.link.close()

    async def detach(self) -> None:
        await asyncio.to_thread(world.detach, self.name)


@dataclass
class Site:
    """The field, its faults, and what was tried."""

    field: Field
    folder: Path
    tried: int = 0
    _seen: int = 0
    guests: list[Guest] = field(default_factory=list)

    def guest(self, name: str, *, sized: bool = False) -> Guest:
        number = len(self.guests)
        made = Guest(self, name, 20 + number, list(Kind)[number % 2], sized)
        self.guests.append(made)
        return made

    def plan(self, call: str, fault: Fault, *, pod: str = "", times: int = 1, number: int = 0) -> None:
        """`times` in a row from `number` on: two plans of one call and pod need different numbers."""
        self.tried += 1
        for one in range(number, number + times):
            plan(self.folder, call, fault, pod=pod, number=one)

    def wrong(self, text: str) -> None:
        self.field.outcome.problems.append(text)

    async def until(self, what: str, holds: Callable[[], bool], seconds: float = 30) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not await asyncio.to_thread(holds):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self.wrong(f"not within {seconds} s: {what}; planned still {planned(self.folder)}, living {self.living()}")

    def living(self) -> list[str]:
        """The ledger: what `local` keeps of each pod VM, half-made ones included."""
        vms = self.field.paths.vms / "vms"
        return sorted(path.name for path in vms.iterdir()) if vms.exists() else []

    async def empty(self, but: Sequence[str] = ()) -> None:
        await self.until("an empty ledger", lambda: set(self.living()) <= set(but))
        await self.until("every planned fault met", lambda: not planned(self.folder))

    async def again(self, **settings: str) -> None:
        """The node is killed and another one starts, with other settings."""
        await self.field.daemons.kill("node")
        await self.begun(**settings)

    async def begun(self, **settings: str) -> None:
        self._seen, served = self._log().count(_LISTED), self._log().count(_SERVES)
        self.field.daemons.environ = {**self.field.plan.environ, **settings}
        await self.field.daemons.start_one("node")
        await self.until("the node serves", lambda: self._log().count(_SERVES) > served)

    def listed(self) -> bool:
        """Whether the node that runs has got the cloud's list for its recovery."""
        return self._log().count(_LISTED) > self._seen

    def _log(self) -> str:
        return self.field.paths.log("node").read_text(errors="replace")

    async def refused(self) -> None:
        """A check that the cloud refuses ends the node, with the setting that asked for it."""
        code = await asyncio.wait_for(self.field.daemons.running.pop("node").wait(), 20)
        if code != 2 or "CLOUD_CONFIG_VERIFY" not in self._log().splitlines()[-1]:
            self.wrong(f"a refused check ended the node with {code}: {self._log()[-500:]}")

    async def ended(self) -> None:
        """SIGTERM, and an end in good time whatever the driver's `close` does."""
        node = self.field.daemons.running.pop("node")
        node.send_signal(signal.SIGTERM)
        try:
            if code := await asyncio.wait_for(node.wait(), 12):
                self.wrong(f"told to end, the node ended with {code}")
        except TimeoutError:
            self.wrong("told to end, the node did not within 12 s")
            node.kill()
            await node.wait()

    async def fail(self, guests: Sequence[Guest], faults: Sequence[Fault]) -> None:
        """Starts that must fail, one a fault, with what a user reads in the pod's events. Then their StopVM."""
        told = await asyncio.gather(*(self._error_of(guest) for guest in guests))
        for fault in faults:
            text = next((one for one in told if TOLD[fault] in one), "")
            if "could not create the pod VM" not in text or "CLOUD_CONFIG_VERIFY" not in text:
                self.wrong(f"no start failed with {TOLD[fault]!r}, step and remedy: {told}")
            told = [one for one in told if one is not text]
        await asyncio.gather(*(guest.stop() for guest in guests))

    async def _error_of(self, guest: Guest) -> str:
        try:
            await guest.start()
        except CaaError as error:
            return str(error)
        return f"the start of {guest.name} succeeded"

    async def begin(self, guest: Guest) -> None:
        try:
            await guest.start()
        except CaaError as error:
            self.wrong(f"{guest.name}: {error}")


async def driver_faults(chances: Plan, _size: object) -> list[Outcome]:
    """Each part leaves an empty ledger but for one pod that stands through all of them."""
    outcome = Outcome("driver faults")
    plugins, folder = chances.folder / "plugins", chances.folder / "faults"
    folder.mkdir()
    faulty_driver.install(plugins)
    path = os.pathsep.join([str(plugins), str(Path.cwd())])
    environ = {**chances.environ, "PYTHONPATH": path, "FAULTS_FOLDER": str(folder)}
    async with opened(replace(chances, environ=environ, provider=faulty_driver.NAME), outcome) as made:
        site = Site(made, folder)
        pod = await start_pod(made.paths.hypervisor, "stands", place=FIRST_PLACE, kind=Kind.GO)
        made.stage.groups += await asyncio.to_thread(world.groups_of, site.living()[0])
        stands = site.living()
        container = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
        for part in (_of_starts, _of_stops, _of_kills):
            await part(site)
            await site.empty(but=stands)
            await _lives(site, pod, container)
        for fault in OF_A_CALL:
            await _of_an_end_and_a_start(site, fault)
            await _lives(site, pod, container)
        await pod.stop()
        await asyncio.to_thread(world.detach, "stands")
        await site.empty()
        await asyncio.gather(*(guest.detach() for guest in site.guests))
        outcome.pods_lost = int(pod.failed.is_set())
        outcome.done = {"faults x calls x moments": site.tried}
        outcome.figures = {"pods": len(site.guests) + 1, "instances left in the ledger": len(site.living())}
    return [outcome]


async def _lives(site: Site, pod: Pod, container: Process) -> None:
    result = await pod.exec(container, ["/bin/echo", "alive"])
    if result.stdout != b"alive\n":
        site.wrong(f"the standing pod answered {result}")


async def _of_starts(site: Site) -> None:
    """Faults of create, of the catalogue, and of the list that the undoing of a lost create needs."""
    await site.again(START_TIMEOUT=START_TIMEOUT, ENABLE_GC="false")
    creating = [site.guest(f"cr{number}") for number, _ in enumerate(Fault)]
    for guest, fault in zip(creating, Fault, strict=True):
        site.plan("create", fault, pod=guest.name)
    choosing = [site.guest(f"ch{number}", sized=True) for number, _ in enumerate(OF_A_CALL)]
    for number, fault in enumerate(OF_A_CALL):
        site.plan("instance_types", fault, number=number)
    await asyncio.gather(site.fail(creating, list(Fault)), site.fail(choosing, OF_A_CALL))
    losing = [site.guest(f"lo{number}") for number, _ in enumerate(ANSWERED)]
    for number, (guest, fault) in enumerate(zip(losing, ANSWERED, strict=True)):
        site.plan("create", Fault.LOST_ANSWER, pod=guest.name)
        site.plan("list_owned", fault, number=number)
    await site.fail(losing, [Fault.LOST_ANSWER] * len(losing))


async def _of_stops(site: Site) -> None:
    """Faults of delete; a delete without an answer is asked again by the next process."""
    await site.again(ENABLE_GC="false")
    answered = [site.guest(f"st{number}") for number, _ in enumerate(ANSWERED)]
    silent = [site.guest(f"hu{number}") for number, _ in enumerate(HANGING)]
    await asyncio.gather(*(site.begin(one) for one in (*answered, *silent)))
    for guests, faults, times in ((answered, ANSWERED, 2), (silent, HANGING, 1)):
        for guest, fault in zip(guests, faults, strict=True):
            site.plan("delete", fault, pod=guest.name, times=times)
    await asyncio.gather(*(one.stop() for one in (*answered, *silent)))
    await site.until("every delete has failed", lambda: not planned(site.folder))
    await site.again(ENABLE_GC="false")


async def _of_kills(site: Site) -> None:
    """The node is killed while create has no answer, or the list that an undoing needs: the StartVM that waits in the
    relay gets its pod from the next process, and never a second one."""
    creating = [site.guest(f"ki{number}") for number, _ in enumerate(HANGING)]
    losing = [site.guest(f"kl{number}") for number, _ in enumerate(HANGING)]
    for number, fault in enumerate(HANGING):
        site.plan("create", fault, pod=creating[number].name)
        site.plan("create", Fault.LOST_ANSWER, pod=losing[number].name)
    await site.until("the list of the start-up was asked", site.listed)
    for number, fault in enumerate(HANGING):
        site.plan("list_owned", fault, number=number)
    guests = [*creating, *losing]
    starting = asyncio.gather(*(site.begin(one) for one in guests))
    await site.until("every call hangs", lambda: not planned(site.folder))
    await site.again(ENABLE_GC="false")
    await starting
    if len(site.living()) != len(guests) + 1:
        site.wrong(f"{len(guests)} pods and one that stands have these pod VMs: {site.living()}")
    await asyncio.gather(*(one.stop() for one in guests))


async def _of_an_end_and_a_start(site: Site, fault: Fault) -> None:
    """Faults of close at the end of a node; of check, and of the lists of recovery and sweep, at the start of one."""
    site.plan("close", fault)
    await site.ended()
    site.plan("check", fault)
    await site.begun(CLOUD_CONFIG_VERIFY="true")
    await site.until(f"check has met {fault}", lambda: not planned(site.folder))
    if fault is Fault.REFUSED:
        await site.refused()
    else:
        await site.field.daemons.kill("node")
    for number in range(2):
        site.plan("list_owned", fault, number=number)
    await site.begun()
    await site.until(f"recovery has met {fault}", lambda: len(planned(site.folder)) < 2)
    await site.field.daemons.kill("node")
    for path in site.folder.iterdir():
        path.unlink()  # a sweep comes only when the recovery has got its answer
    await site.begun()
