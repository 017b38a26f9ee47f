"""A pod's volumes: asked for before the pod VM is paid for, attached with it, kept in the record, told to the relay."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from caa.errors import CaaError, Code, StepFailed, Unavailable
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, PodSpec
from caa.model.volume import Volume
from caa.sandbox import records
from caa.sandbox.steps import FindVolumes

ONE = SandboxId("a" * 64)
FIRST = Volume(source="/volumes/a/mount", disk="disk-a", fs_type="xfs", fs_group=2000, key="kbs:///a/b/c")
SECOND = Volume(source="/volumes/b/mount", disk="disk-b")


@dataclass
class Source:
    """Who knows the volumes, by the pod's name."""

    known: dict[str, Sequence[Volume]] = field(default_factory=lambda: {"web": [FIRST, SECOND]})
    error: CaaError | None = None
    asked: list[tuple[SandboxId, str]] = field(default_factory=list)

    async def of(self, sandbox: SandboxId, pod: PodSpec) -> Sequence[Volume]:
        self.asked.append((sandbox, pod.pod_name))
        if self.error is not None:
            raise self.error
        return self.known.get(pod.pod_name, ())


@pytest.fixture
def source(bench: Any) -> Source:
    """The node of the bench, whose steps know a source of volumes."""
    made, plain = Source(), bench.steps
    bench.provider.volumes = True

    def steps() -> list[Any]:
        first, *rest = plain()
        return [first, FindVolumes(made, bench.provider), *rest]

    bench.steps = steps
    bench.service = bench._new_service()
    return made


async def started(bench: Any, name: str = "web") -> None:
    await bench.service.create(ONE, bench.pod(name))
    await bench.service.start(ONE)


async def test_they_are_attached_with_the_pod_vm_and_told_to_the_relay(bench: Any, source: Source) -> None:
    await started(bench)
    (request,) = bench.provider.requests
    assert request.volumes == ("disk-a", "disk-b")
    assert bench.links.opened[ONE].volumes == (FIRST, SECOND)
    assert source.asked == [(ONE, "web")]


async def test_the_record_has_them_before_the_cloud_is_asked(bench: Any, source: Source) -> None:
    """So that whoever undoes the start after a crash knows them."""
    seen = []
    create = bench.provider.create

    async def look(request: Any) -> Any:
        seen.append(records.decode(records.encode(bench.store.rows[ONE])).volumes)
        return await create(request)

    bench.provider.create = look
    await started(bench)
    assert seen == [(FIRST, SECOND)]


async def test_a_restart_keeps_them(bench: Any, source: Source) -> None:
    await started(bench)
    source.known = {}
    await bench.restart()
    bench.links.opened.clear()
    await bench.service.reopen_link(ONE)
    assert bench.links.opened[ONE].volumes == (FIRST, SECOND)
    assert len(source.asked) == 1


async def test_a_pod_without_volumes(bench: Any, source: Source) -> None:
    await started(bench, "other")
    assert bench.provider.requests[0].volumes == ()
    assert bench.links.opened[ONE].volumes == ()


async def test_a_start_that_is_undone_forgets_them_and_the_next_asks_again(bench: Any, source: Source) -> None:
    bench.faults.before["provider.create"] = Unavailable("not now")
    bench.faults.times["provider.create"] = 1
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed):
        await bench.service.start(ONE)
    record = bench.store.rows[ONE]
    assert (record.phase, record.volumes) == (Phase.FAILED, ())
    source.known = {"web": [SECOND]}
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    assert bench.provider.requests[-1].volumes == ("disk-b",)


async def test_a_pod_never_starts_without_a_disk_that_it_needs(bench: Any, source: Source) -> None:
    source.error = Unavailable("the CSI driver does not answer")
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match="could not find the pod's volumes: the CSI driver does not answer") as caught:
        await bench.service.start(ONE)
    assert caught.value.code is Code.UNAVAILABLE
    assert bench.provider.requests == []
    assert bench.left_over() == {}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Volume(source="/volumes/../etc", disk="d"), "no absolute path"),
        (Volume(source="/volumes/c", disk="d\nd"), "no id of a disk"),
        (Volume(source=FIRST.source, disk="d"), "the same source"),
    ],
)
async def test_what_the_source_says_is_checked_before_the_cloud_is_asked(
    bench: Any, source: Source, wrong: Volume, text: str
) -> None:
    source.known = {"web": [FIRST, wrong]}
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match=text) as caught:
        await bench.service.start(ONE)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert bench.provider.requests == []
    assert bench.left_over() == {}


async def test_defect_a_driver_without_volumes_starts_a_pod_without_its_disk(bench: Any, source: Source) -> None:
    """The reference does, on every cloud but AWS and Azure (providers.md 0)."""
    bench.provider.volumes = False
    await bench.service.create(ONE, bench.pod())
    with pytest.raises(StepFailed, match="2 volumes that are disks of the cloud, and this provider attaches none"):
        await bench.service.start(ONE)
    assert bench.left_over() == {}


async def test_they_stay_when_the_pod_goes(bench: Any, source: Source) -> None:
    """The step has nothing to undo; the release of the PeerPod still comes last, after everything else."""
    await started(bench)
    await bench.service.stop(ONE)
    await bench.service.settled()
    assert bench.left_over() == {}
    acts = [call for call in bench.faults.calls if call.startswith(("provider.delete", "ledger.release"))]
    assert acts == ["provider.delete", "ledger.release"]
