"""A new process on the records of an earlier one: every point of a crash ends clean, what runs goes on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from caa.errors import NetworkError, ProviderError, StepFailed, Unavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Instance, Owner
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.boot import Action, Recovery, decide, decide_running
from caa.sandbox.ports import LinkState

ONE = SandboxId("a" * 64)
OWNER = Owner(cluster="c1", node="n1")
ACTS = ["ledger.own", "provider.create", "ledger.note", "network.connect", "links.open"]
UNDOINGS = ["links.close", "network.disconnect", "provider.delete", "ledger.release", "store.remove"]


def recovery(bench: Any) -> Recovery:
    return Recovery(
        service=bench.service, links=bench.links, provider=bench.provider, owner=OWNER, boot_id=bench.boot_id
    )


async def reborn(bench: Any) -> None:
    """The process dies where it is, and a new one starts on its store."""
    bench.faults.before.clear()
    bench.faults.after.clear()
    bench.faults.gates.clear()
    await bench.restart()
    await recovery(bench).at_once()
    await recovery(bench).running()
    async with asyncio.timeout(10):
        await bench.service.settled()


async def hold(bench: Any, call: str, *, effect: bool) -> None:
    """Bring a start or stop to the point before (or after) `call` has taken effect, where nothing answers any more."""
    if not effect:
        bench.faults.gate(call)
        return
    real = bench.faults.around
    stuck = asyncio.Event()
    bench.faults.reached[call] = stuck

    async def around(name: str, effect: Any) -> Any:
        result = await real(name, effect)
        if name == call:
            stuck.set()
            await asyncio.Event().wait()
        return result

    bench.faults.around = around


async def killed_in_start(bench: Any, call: str, *, effect: bool) -> None:
    await bench.service.create(ONE, bench.pod())
    await hold(bench, call, effect=effect)
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered(call)
    await bench.service.close()
    await asyncio.wait({start})
    assert start.exception() is not None
    bench.faults.__dict__.pop("around", None)


@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["boot_data.render", *ACTS])
async def test_a_crash_in_a_start_is_undone_and_the_start_may_come_again(bench: Any, call: str, effect: bool) -> None:
    await killed_in_start(bench, call, effect=effect)
    assert bench.store.rows[ONE].phase is Phase.STARTING
    await reborn(bench)
    assert bench.left_over() == {}
    assert bench.store.rows[ONE].phase is Phase.CREATED
    await bench.service.start(ONE)  # the relay kept the shim's call
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert len(bench.provider.living) == 1


@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", UNDOINGS)
async def test_a_crash_in_a_stop_is_finished(bench: Any, call: str, effect: bool) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    await hold(bench, call, effect=effect)
    await bench.service.stop(ONE)
    await bench.faults.entered(call)
    await bench.service.close()
    bench.faults.__dict__.pop("around", None)
    await reborn(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_a_start_that_comes_during_the_undoing_waits_for_it(bench: Any) -> None:
    await killed_in_start(bench, "links.open", effect=False)
    bench.faults.gates.clear()
    await bench.restart()
    gate = bench.faults.gate("provider.delete")
    await recovery(bench).at_once()
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.delete")
    assert not start.done()
    gate.set()
    await start
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert bench.store.rows[ONE].instance == "i-2"
    assert list(bench.provider.living) == ["i-2"]


async def test_a_stop_that_comes_during_the_undoing_wins(bench: Any) -> None:
    await killed_in_start(bench, "links.open", effect=False)
    bench.faults.gates.clear()
    await bench.restart()
    gate = bench.faults.gate("provider.delete")
    await recovery(bench).at_once()
    await bench.faults.entered("provider.delete")
    await bench.service.stop(ONE)
    gate.set()
    await bench.service.settled()
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_what_runs_goes_on(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    before = bench.store.rows[ONE]
    await reborn(bench)
    assert bench.store.rows[ONE] == before
    assert list(bench.provider.living) == ["i-1"]
    await bench.service.stop(ONE)
    await bench.service.settled()
    assert bench.left_over() == {}


async def test_a_running_sandbox_without_a_link_gets_one(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    bench.links.opened.clear()
    await reborn(bench)
    assert ONE in bench.links.opened


async def test_a_running_sandbox_whose_instance_is_gone_is_cleared(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    bench.links.opened.clear()
    bench.provider.living.clear()
    await reborn(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_a_cloud_that_cannot_be_asked_costs_no_pod_its_life(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    bench.links.opened.clear()
    await bench.restart()
    bench.faults.before["provider.list_owned"] = ProviderError("throttled")
    bench.faults.before["links.open"] = Unavailable("no relay")
    await recovery(bench).running()
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_failed_start_is_forgotten(bench: Any) -> None:
    bench.faults.before["provider.create"] = ProviderError("no")
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match="no"):
        await bench.service.start(ONE)
    await reborn(bench)
    assert bench.store.rows == {}


@pytest.mark.parametrize("phase", ["created", "running", "starting"])
async def test_after_a_boot_of_the_node_everything_is_undone(bench: Any, phase: str) -> None:
    if phase == "starting":
        await killed_in_start(bench, "links.open", effect=False)
    else:
        await bench.service.create(ONE, bench.pod())
        if phase == "running":
            await bench.service.start(ONE)
    bench.boot_id = "boot-2"
    await reborn(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


def record(phase: Phase, bench: Any) -> Sandbox:
    return Sandbox(
        id=ONE,
        pod=bench.pod(),
        phase=phase,
        instance_name="podvm-web",
        token="t",
        boot_id="boot-1",
        created_at=0,
        instance=InstanceId("i-1"),
    )


def test_the_rule_for_every_phase(bench: Any) -> None:
    told = {phase: decide(record(phase, bench), "boot-1") for phase in Phase}
    assert told == {
        Phase.CREATED: Action.KEEP,
        Phase.STARTING: Action.CLEAR,
        Phase.RUNNING: Action.KEEP,
        Phase.FAILED: Action.DISCARD,
        Phase.STOPPING: Action.STOP,
    }
    assert {decide(record(phase, bench), "boot-2") for phase in Phase} == {Action.REBOOTED}


@pytest.mark.parametrize(
    ("links", "instances", "action"),
    [
        (None, None, Action.KEEP),
        (None, set(), Action.KEEP),
        ([], None, Action.REOPEN),
        ([], set(), Action.LOST),
        ([], {"i-1"}, Action.REOPEN),
        ([True], set(), Action.KEEP),
        ([False], set(), Action.KEEP),
        ([False], {"i-1"}, Action.KEEP),
        ([False], None, Action.KEEP),
    ],
)
def test_the_rule_for_running_ones(
    bench: Any, links: list[bool] | None, instances: set[InstanceId] | None, action: Action
) -> None:
    states = None if links is None else [LinkState(sandbox=ONE, connected=up, shims=0) for up in links]
    assert decide_running(record(Phase.RUNNING, bench), links=states, instances=instances) is action


async def test_an_instance_without_a_recorded_id_is_found_by_its_name(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    name = bench.store.rows[ONE].instance_name
    bench.provider.living[InstanceId("i-7")] = Instance(id=InstanceId("i-7"), name=name, addresses=())
    bench.provider.living[InstanceId("i-8")] = Instance(id=InstanceId("i-8"), name="another", addresses=())
    bench.store.rows[ONE] = replace(bench.store.rows[ONE], phase=Phase.STARTING, reached="launch")
    await reborn(bench)
    assert list(bench.provider.living) == ["i-8"]


async def test_a_running_sandbox_whose_tunnel_is_gone_gets_it_again(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    tunnel = bench.network.connected.pop("/run/netns/web")
    await reborn(bench)
    assert bench.network.connected == {"/run/netns/web": tunnel}


async def test_a_namespace_that_cannot_be_looked_at_costs_no_pod_its_life(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    await bench.restart()
    bench.faults.before["network.connect"] = NetworkError("the namespace is gone")
    await recovery(bench).running()
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_cloud_that_never_answers_does_not_keep_links_from_being_mended(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caa.sandbox.boot._PATIENCE", 0.01)
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    bench.links.opened.clear()
    await bench.restart()
    bench.faults.gate("provider.list_owned")
    await recovery(bench).running()
    assert ONE in bench.links.opened
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_node_that_is_called_otherwise_looks_for_the_tags_of_before(bench: Any) -> None:
    """CAA_CLUSTER_ID or NODE_NAME has changed: the instance still carries the old ones, and its pod must live."""
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    bench.links.opened.clear()
    asked = []
    real = bench.provider.list_owned

    async def list_owned(owner: Owner) -> Any:
        asked.append(owner)
        return await real(owner) if owner == OWNER else []

    bench.provider.list_owned = list_owned
    await bench.restart()
    now = Owner(cluster="c2", node="renamed")
    await Recovery(
        service=bench.service, links=bench.links, provider=bench.provider, owner=now, boot_id=bench.boot_id
    ).running()
    await bench.service.settled()
    assert asked == [OWNER]
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert list(bench.links.opened) == [ONE]
