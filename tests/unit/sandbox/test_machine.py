"""Every pair of phase and event: what is allowed, and that all the rest is refused."""

import itertools

import pytest

from caa.errors import Code, IllegalTransition
from caa.model.sandbox import Phase
from caa.sandbox.machine import TABLE, Event, after

ALLOWED = {
    (Phase.CREATED, Event.CREATE): Phase.CREATED,
    (Phase.CREATED, Event.START): Phase.STARTING,
    (Phase.CREATED, Event.STOP): Phase.STOPPING,
    (Phase.STARTING, Event.STARTED): Phase.RUNNING,
    (Phase.STARTING, Event.FAILED): Phase.FAILED,
    (Phase.STARTING, Event.INTERRUPTED): Phase.CREATED,
    (Phase.STARTING, Event.STOP): Phase.STOPPING,
    (Phase.RUNNING, Event.STOP): Phase.STOPPING,
    (Phase.FAILED, Event.CREATE): Phase.CREATED,
    (Phase.FAILED, Event.STOP): Phase.STOPPING,
    (Phase.STOPPING, Event.STOP): Phase.STOPPING,
}


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_every_pair(phase: Phase, event: Event) -> None:
    if (phase, event) in ALLOWED:
        assert after(phase, event) is ALLOWED[phase, event]
    else:
        with pytest.raises(IllegalTransition, match=phase.value) as refused:
            after(phase, event)
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert str(event) in str(refused.value)


def test_nothing_leaves_stopping() -> None:
    assert {to for (phase, _), to in TABLE.items() if phase is Phase.STOPPING} == {Phase.STOPPING}


def test_every_phase_can_be_stopped() -> None:
    assert all(after(phase, Event.STOP) is Phase.STOPPING for phase in Phase)
