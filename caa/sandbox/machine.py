"""The life of a sandbox as a table (phase, event) -> phase; pure, and anything that is not in it is an error.

    CREATED --START--> STARTING --STARTED--> RUNNING
       ^                  |  \\--FAILED--> FAILED --CREATE--> CREATED
       \\---INTERRUPTED---/
    and from every phase --STOP--> STOPPING, which ends with the record's removal.

FAILED and INTERRUPTED are told only when everything the start had made is gone again.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from caa.errors import IllegalTransition
from caa.model.sandbox import Phase


class Event(StrEnum):
    """What may happen to a sandbox."""

    CREATE = "CreateVM"  # again, with the same id
    START = "StartVM"
    STARTED = "the end of its start"
    FAILED = "the failure of its start"
    INTERRUPTED = "the interruption of its start"  # the control plane died in the middle
    STOP = "StopVM"


TABLE: Mapping[tuple[Phase, Event], Phase] = MappingProxyType(
    {
        (Phase.CREATED, Event.CREATE): Phase.CREATED,
        (Phase.CREATED, Event.START): Phase.STARTING,
        (Phase.STARTING, Event.STARTED): Phase.RUNNING,
        (Phase.STARTING, Event.FAILED): Phase.FAILED,
        (Phase.STARTING, Event.INTERRUPTED): Phase.CREATED,
        (Phase.FAILED, Event.CREATE): Phase.CREATED,
        (Phase.CREATED, Event.STOP): Phase.STOPPING,
        (Phase.STARTING, Event.STOP): Phase.STOPPING,
        (Phase.RUNNING, Event.STOP): Phase.STOPPING,
        (Phase.FAILED, Event.STOP): Phase.STOPPING,
        (Phase.STOPPING, Event.STOP): Phase.STOPPING,
    }
)


def after(phase: Phase, event: Event) -> Phase:
    """The phase that follows; raises `IllegalTransition` naming both."""
    try:
        return TABLE[phase, event]
    except KeyError:
        raise IllegalTransition(f"a sandbox that is {phase} does not take {event}") from None
