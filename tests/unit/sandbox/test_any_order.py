"""Any order of calls, faults, cancellations and crashes on several sandboxes: no instance without a record, ever,
and nothing of anything once all are stopped."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from caa.errors import CaaError, ProviderError, StateError
from caa.model.ids import SandboxId
from caa.model.instance import Owner
from caa.sandbox.boot import Recovery

IDS = st.sampled_from([SandboxId("a" * 64), SandboxId("sandbox-1"), SandboxId("sandbox-2")])
CALLS = st.sampled_from(
    [
        "network.inspect",
        "boot_data.render",
        "ledger.own",
        "provider.create",
        "ledger.note",
        "network.connect",
        "links.open",
        "links.close",
        "network.disconnect",
        "provider.delete",
        "provider.list_owned",
        "ledger.release",
        "store.add",
        "store.put",
        "store.remove",
    ]
)


class AnyOrder(RuleBasedStateMachine):
    """Calls run as tasks; `pass_time` lets them go on by a few turns of the loop, so that they meet anywhere."""

    def __init__(self, new_bench: Any) -> None:
        super().__init__()
        self.new_bench = new_bench
        self.runner = asyncio.Runner()
        self.calls: list[asyncio.Task[Any]] = []

    @initialize()
    def begin(self) -> None:
        async def made() -> Any:
            return self.new_bench()

        self.bench = self.runner.run(made())

    def call(self, work: Any) -> None:
        async def spawned() -> None:
            self.calls.append(asyncio.create_task(work))

        self.runner.run(spawned())

    @rule(sandbox=IDS, netns=st.sampled_from(["/run/netns/1", "/run/netns/1", "/run/netns/2"]))
    def create(self, sandbox: SandboxId, netns: str) -> None:
        self.call(self.bench.service.create(sandbox, self.bench.pod("", netns=f"{netns}-{sandbox}")))

    @rule(sandbox=IDS)
    def start(self, sandbox: SandboxId) -> None:
        self.call(self.bench.service.start(sandbox))

    @rule(sandbox=IDS)
    def stop(self, sandbox: SandboxId) -> None:
        self.call(self.bench.service.stop(sandbox))

    @rule(turns=st.integers(1, 40))
    def pass_time(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.runner.run(turn())

    @rule(which=st.integers(0, 5))
    def caller_goes(self, which: int) -> None:
        living = [one for one in self.calls if not one.done()]
        if living:
            living[which % len(living)].cancel()

    @rule(call=CALLS, times=st.integers(1, 3), lost=st.booleans())
    def fault(self, call: str, times: int, lost: bool) -> None:
        faults = self.bench.faults
        (faults.after if lost else faults.before)[call] = (StateError if call.startswith("store") else ProviderError)(
            "injected"
        )
        faults.times[call] = times

    @rule(sandbox=IDS)
    def give_up(self, sandbox: SandboxId) -> None:
        """Nobody seems to attend to it; calls may come at the same moment."""
        for record in self.bench.service.records():
            if record.id == sandbox:
                calls = self.bench.service.calls(sandbox)
                self.call(self.bench.service.give_up(sandbox, record.phase, calls=calls, why="it seems so"))

    @rule(rebooted=st.booleans())
    def crash(self, rebooted: bool) -> None:
        if rebooted:
            self.bench.boot_id += "+"
        self.runner.run(self._restarted())

    @rule(undone=st.sampled_from([0.0, 0.01]))
    def told_to_end(self, undone: float) -> None:
        """As a roll-out does: the connections are closed after the drain, the calls come again."""

        async def ended() -> None:
            await self.bench.service.drain(0)
            self.bench.service.closing()
            for one in self.calls:
                one.cancel()
            await self.bench.service.undo_starts(undone)
            await self._restarted()

        self.runner.run(ended())

    async def _restarted(self) -> None:
        await self.bench.restart()
        for one in self.calls:
            one.cancel()
        if self.calls:
            await asyncio.wait(self.calls)
        await self._recovery().at_once()
        await self._recovery().running()

    def _recovery(self) -> Recovery:
        bench = self.bench
        owner = Owner(cluster="c1", node="n1")
        return Recovery(
            service=bench.service, links=bench.links, provider=bench.provider, owner=owner, boot_id=bench.boot_id
        )

    @invariant()
    def every_instance_has_a_record(self) -> None:
        names = {one.instance_name for one in self.bench.store.rows.values()}
        assert {one.name for one in self.bench.provider.living.values()} <= names

    @invariant()
    def no_two_sandboxes_share_an_instance(self) -> None:
        names = [one.instance_name for one in self.bench.store.rows.values()]
        assert len(names) == len(set(names))

    def teardown(self) -> None:
        try:
            self.runner.run(self._end())
        finally:
            self.runner.close()

    async def _end(self) -> None:
        bench = self.bench
        bench.faults.before.clear()
        bench.faults.after.clear()
        async with asyncio.timeout(3):
            if self.calls:
                await asyncio.wait(self.calls)
            await bench.service.settled()
            for record in bench.service.records():
                await bench.service.stop(record.id)
            await bench.service.settled()
        for one in self.calls:
            if not one.cancelled() and (error := one.exception()) is not None:
                assert isinstance(error, CaaError), error
        assert bench.left_over() == {}
        assert bench.service.records() == []
        assert bench.store.rows == {}


def test_any_order_ends_with_nothing_left(new_bench: Any) -> None:
    run_state_machine_as_test(
        lambda: AnyOrder(new_bench),
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
