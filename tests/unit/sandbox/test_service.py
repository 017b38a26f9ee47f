"""CreateVM, StartVM, StopVM as both shims use them: idempotence, joins, cancellation, and nothing left at the end."""

import asyncio
from typing import Any

import pytest

from caa.errors import (
    Cancelled,
    CapacityError,
    Code,
    DeadlineExceeded,
    IllegalTransition,
    InvalidInput,
    NotFound,
    ProviderError,
    StateError,
    StepFailed,
)
from caa.model.ids import SandboxId
from caa.model.instance import Sizing
from caa.model.sandbox import Phase

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)
START_CALLS = [
    "boot_data.render",
    "ledger.own",
    "provider.create",
    "ledger.note",
    "network.connect",
    "links.open",
]


async def started(bench: Any, sandbox: SandboxId = ONE, pod: str = "web") -> None:
    await bench.service.create(sandbox, bench.pod(pod))
    await bench.service.start(sandbox)


async def settle(bench: Any) -> None:
    async with asyncio.timeout(10):
        await bench.service.settled()


async def test_a_pod_lives_and_goes(bench: Any) -> None:
    path = await bench.service.create(ONE, bench.pod())
    assert path == f"/pods/{ONE}/agent.ttrpc"
    assert bench.left_over() == {}
    await bench.service.start(ONE)
    record = bench.store.rows[ONE]
    assert (record.phase, record.reached, record.instance) == (Phase.RUNNING, "link", "i-1")
    assert bench.links.opened[ONE].server_name == "podvm-web-aaaaaaaa"
    assert bench.ledger.owned == {ONE: "i-1"}
    assert bench.network.connected["/run/netns/web"].vni == 555000
    await bench.service.stop(ONE)
    await settle(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_the_driver_learns_the_digest_of_the_initdata(bench: Any) -> None:
    """Which `render` told, for what was rendered: HOST_DATA must never be of another text than the guest's."""
    await started(bench)
    assert bench.provider.requests[0].initdata.value == bytes(range(32))


async def test_the_record_is_saved_before_each_act(bench: Any) -> None:
    await started(bench)
    acts = [
        call
        for call in bench.faults.calls
        if call.startswith(("store.", "ledger.", "provider.", "links.", "network.c"))
    ]
    for act in ("ledger.own", "provider.create", "ledger.note", "network.connect", "links.open"):
        assert acts[acts.index(act) - 1] == "store.put", act


async def test_create_twice_is_once(bench: Any) -> None:
    paths = {await bench.service.create(ONE, bench.pod()) for _ in range(3)}
    assert len(paths) == 1
    assert len(bench.store.rows) == 1
    await asyncio.gather(*(bench.service.create(TWO, bench.pod("two")) for _ in range(5)))
    assert len(bench.store.rows) == 2


async def test_create_again_while_running_keeps_the_pod(bench: Any) -> None:
    await started(bench)
    await bench.service.create(ONE, bench.pod())
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert bench.provider.made == 1


async def test_create_again_waits_for_an_outstanding_stop(bench: Any) -> None:
    await started(bench)
    gate = bench.faults.gate("provider.delete")
    await bench.service.stop(ONE)
    again = asyncio.create_task(bench.service.create(ONE, bench.pod()))
    await bench.faults.entered("provider.delete")
    assert not again.done()
    gate.set()
    assert await again == f"/pods/{ONE}/agent.ttrpc"
    await bench.service.start(ONE)
    assert len(bench.provider.living) == 1
    assert bench.store.rows[ONE].tunnel.index == 1  # never used twice


async def test_a_new_life_of_a_running_id_ends_the_earlier_one(bench: Any) -> None:
    await started(bench)
    await bench.service.create(ONE, bench.pod(netns="/run/netns/other"))
    assert bench.store.rows[ONE].phase is Phase.CREATED
    assert bench.store.rows[ONE].pod.netns == "/run/netns/other"
    assert bench.left_over() == {}


async def test_a_created_sandbox_takes_the_newer_pod(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.create(ONE, bench.pod(netns="/run/netns/other"))
    assert bench.store.rows[ONE].pod.netns == "/run/netns/other"


@pytest.mark.parametrize("call", ["network.inspect", "boot_data.validate", "store.add"])
async def test_a_refused_create_leaves_nothing(bench: Any, call: str) -> None:
    bench.faults.before[call] = InvalidInput("no such namespace") if call != "store.add" else StateError("disk full")
    with pytest.raises((InvalidInput, StateError)):
        await bench.service.create(ONE, bench.pod())
    await settle(bench)
    assert bench.service.records() == []
    assert bench.store.rows == {}


async def test_create_whose_caller_goes_is_undone(bench: Any) -> None:
    gate = bench.faults.gate("network.inspect")
    creating = asyncio.create_task(bench.service.create(ONE, bench.pod()))
    await bench.faults.entered("network.inspect")
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    gate.set()
    await settle(bench)
    assert bench.store.rows == {}


async def test_a_create_that_another_caller_waits_for_outlives_its_first_caller(bench: Any) -> None:
    """The same CreateVM on two connections: the first to close must not end what the second is answered."""
    gate = bench.faults.gate("network.inspect")
    first = asyncio.create_task(bench.service.create(ONE, bench.pod()))
    second = asyncio.create_task(bench.service.create(ONE, bench.pod()))
    await bench.faults.entered("network.inspect")
    first.cancel()
    await asyncio.wait({first})
    gate.set()
    assert await second == bench.links.socket_path(ONE)
    await settle(bench)
    assert bench.store.rows[ONE].phase is Phase.CREATED


async def test_a_stop_ends_every_create_of_its_sandbox(bench: Any) -> None:
    bench.faults.gate("network.inspect")
    calls = [asyncio.create_task(bench.service.create(ONE, bench.pod())) for _ in range(2)]
    await bench.faults.entered("network.inspect")
    await asyncio.sleep(0)
    await bench.service.stop(ONE)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in results] == [Cancelled, Cancelled]
    await settle(bench)
    assert bench.store.rows == {}


async def test_start_of_the_unknown(bench: Any) -> None:
    with pytest.raises(NotFound, match="CreateVM comes first"):
        await bench.service.start(ONE)


async def test_a_second_start_joins_the_first(bench: Any) -> None:
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    starts = [asyncio.create_task(bench.service.start(ONE)) for _ in range(3)]
    await bench.faults.entered("provider.create")
    gate.set()
    await asyncio.gather(*starts)
    await bench.service.start(ONE)
    assert bench.faults.calls.count("provider.create") == 1


async def test_a_second_start_shares_the_failure(bench: Any) -> None:
    bench.faults.before["provider.create"] = CapacityError("no room in zone a")
    await bench.service.create(ONE, bench.pod())
    results = await asyncio.gather(*(bench.service.start(ONE) for _ in range(2)), return_exceptions=True)
    assert [type(one) for one in results] == [StepFailed, StepFailed]


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
@pytest.mark.parametrize("call", START_CALLS)
async def test_a_failed_start_is_undone_and_says_why(bench: Any, call: str, lost: bool) -> None:
    (bench.faults.after if lost else bench.faults.before)[call] = CapacityError("no room in zone a")
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match=r"could not .*: no room in zone a \(.+\)") as failure:
        await bench.service.start(ONE)
    assert failure.value.code is Code.RESOURCE_EXHAUSTED
    assert failure.value.retryable
    assert bench.left_over() == {}
    record = bench.store.rows[ONE]
    assert (record.phase, record.reached, record.instance) == (Phase.FAILED, "", None)
    assert "no room" in record.error
    await bench.service.stop(ONE)
    await settle(bench)
    assert bench.store.rows == {}


async def test_a_foreign_error_is_undone_too(bench: Any) -> None:
    bench.faults.before["network.connect"] = ZeroDivisionError("bug")
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match="ZeroDivisionError: bug") as failure:
        await bench.service.start(ONE)
    assert failure.value.code is Code.INTERNAL
    assert bench.left_over() == {}


async def test_a_failed_start_may_be_created_again(bench: Any) -> None:
    bench.faults.before["provider.create"] = ProviderError("no")
    bench.faults.times["provider.create"] = 1
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed):
        await bench.service.start(ONE)
    with pytest.raises(IllegalTransition):
        await bench.service.start(ONE)
    await started(bench)
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert bench.store.rows[ONE].error == ""


async def test_an_undoing_that_fails_goes_on_until_nothing_is_left(bench: Any) -> None:
    bench.faults.before["links.open"] = ProviderError("no agent")
    bench.faults.before["provider.delete"] = ProviderError("throttled")
    bench.faults.times["provider.delete"] = 9
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match="no agent"):
        await bench.service.start(ONE)
    await settle(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}
    assert bench.clock.slept == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_the_deadline_reaches_the_step_and_is_named(bench: Any) -> None:
    bench.faults.gate("links.open")
    await bench.service.create(ONE, bench.pod())
    loop = asyncio.get_running_loop()
    with pytest.raises(StepFailed, match="reach the agent in the pod VM: the deadline") as failure:
        await bench.service.start(ONE, loop.time() + 0.5)  # a tenth of it is for the undoing, on a busy machine too
    assert failure.value.code is Code.DEADLINE_EXCEEDED
    assert bench.left_over() == {}


async def test_a_late_joiner_with_a_short_deadline_gives_up_alone(bench: Any) -> None:
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    first = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.create")
    with pytest.raises(DeadlineExceeded, match="launch"):
        await bench.service.start(ONE, asyncio.get_running_loop().time() - 1)
    gate.set()
    await first
    assert bench.store.rows[ONE].phase is Phase.RUNNING


@pytest.mark.parametrize("call", START_CALLS)
async def test_a_start_whose_caller_goes_is_undone_at_once(bench: Any, call: str) -> None:
    bench.faults.gate(call)
    await bench.service.create(ONE, bench.pod())
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered(call)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await settle(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_a_start_goes_on_while_one_caller_stays(bench: Any) -> None:
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    first, second = (asyncio.create_task(bench.service.start(ONE)) for _ in range(2))
    await bench.faults.entered("provider.create")
    first.cancel()
    await asyncio.wait({first})
    gate.set()
    await second
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_sandboxes_do_not_wait_for_each_other(bench: Any) -> None:
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod("one"))
    slow = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.create")
    await bench.service.create(TWO, bench.pod("two"))
    await bench.service.stop(TWO)
    gate.set()
    await slow


async def test_ids_with_the_same_beginning_get_their_own_instances(bench: Any) -> None:
    for number in range(3):
        await started(bench, SandboxId(f"sandbox-{number}"), "")
    assert len(bench.provider.living) == 3
    names = {one.instance_name for one in bench.store.rows.values()}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


async def test_the_instance_type_is_chosen_where_there_is_a_catalogue(bench: Any) -> None:
    bench.provider.sized = True
    await started(bench)
    await bench.service.create(TWO, bench.pod("two", sizing=Sizing(vcpus=4)))
    await bench.service.start(TWO)
    assert [one.instance_type for one in bench.provider.requests] == ["", "large"]


async def test_an_instance_type_that_is_not_allowed(bench: Any) -> None:
    bench.provider.sized = True
    await bench.service.create(ONE, bench.pod(sizing=Sizing(instance_type="huge")))
    text = r'requested instance type \("huge"\) is not part of supported instance types list'
    with pytest.raises(StepFailed, match=text) as failure:
        await bench.service.start(ONE)
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert "io.katacontainers.config.hypervisor.machine_type" in str(failure.value)
    assert bench.left_over() == {}


async def test_instance_of_a_pod(bench: Any) -> None:
    ask = bench.service.wait_instance
    with pytest.raises(NotFound):
        await ask("web", "default", wait=False, deadline=None)
    waiting = asyncio.create_task(ask("web", "default", wait=True, deadline=None))
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.create")
    with pytest.raises(NotFound):
        await ask("web", "default", wait=False, deadline=None)
    gate.set()
    assert await waiting == "i-1"
    await start
    assert await ask("web", "default", wait=False, deadline=None) == "i-1"
    with pytest.raises(NotFound):
        await ask("web", "other", wait=False, deadline=None)
    with pytest.raises(DeadlineExceeded):
        await ask("web", "other", wait=True, deadline=asyncio.get_running_loop().time())


async def test_close_leaves_the_records(bench: Any) -> None:
    bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.create")
    await bench.service.close()
    with pytest.raises(Cancelled):
        await start
    assert bench.store.rows[ONE].phase is Phase.STARTING
