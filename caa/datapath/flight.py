"""Calls in flight: which of them may be asked twice when the answer to the first asking will never come.

A connection to the agent that closes takes the answers of its calls with it, and nobody knows which of them the agent
has carried out. Its handlers that wait are cancelled, so a long poll loses nothing by being asked again; a read without
effect neither. Everything else is refused: a second StartContainer hangs the agent for ever (seen with Kata 4.1.0), a
second WriteStdin doubles input.
"""

from __future__ import annotations

from caa.datapath.edits import EditError
from caa.datapath.frames import AGENT, HEADER_SIZE, UNAVAILABLE, Refused, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.mux import Mux

HEALTH = "grpc.Health"
# The agent waits in these, and takes nothing away before it answers.
LONG_POLLS = frozenset({"GetOOMEvent", "ReadStderr", "ReadStdout", "WaitProcess"})
# These only look. Calls that are not here, those of agents to come too, may do something.
READS = frozenset(
    {
        "GetGuestDetails",
        "GetIPTables",
        "GetMetrics",
        "GetVolumeStats",
        "ListInterfaces",
        "ListProcesses",
        "ListRoutes",
        "StatsContainer",
    }
)
HEALTH_READS = frozenset({"Check", "Version"})
LONG_POLL, SAFE, OTHER = range(3)
_ALL = 0xFFFFFFFF
_NOT_REPEATED = (
    "the connection to the pod VM's agent was replaced before the answer came; "
    "the agent may have carried out this call, so it is not repeated"
)


def kind_of(frame: bytes | bytearray) -> int:
    """LONG_POLL or SAFE for a request that may be asked twice, else OTHER; for one that was not kept too."""
    try:
        request = Request(bytes(frame[HEADER_SIZE:]))
    except EditError:
        return OTHER
    if request.service == HEALTH:
        return SAFE if request.method in HEALTH_READS else OTHER
    if request.service != AGENT:
        return OTHER
    if request.method in LONG_POLLS:
        return LONG_POLL
    return SAFE if request.method in READS else OTHER


def reask(mux: Mux, highest: int = _ALL) -> tuple[int, int]:
    """The mux is on a new connection to the agent, so answers to earlier calls never come: ask again what may be.

    In the order of their ids, which have to grow. All others in flight are refused with UNAVAILABLE. Calls above the
    id `highest` are left alone: they have never been sent, and the caller sends them after this. A branch that has got
    a part of an answer ends, for nobody can complete it. Returns how many were asked again and refused.
    """
    mux.break_off()
    flight = mux.flight if mux.flight is not None else {}
    again, refused = [], 0
    for stream in sorted(flight):
        frame = flight.get(stream)
        if frame is None or stream > highest:
            continue  # gone with its branch, or not sent yet
        if kind_of(frame) != OTHER:
            again.append(frame)
            continue
        refused += 1
        branch, own = mux.take_back(stream)
        if branch is not None:
            branch.refuse(own, Refused(UNAVAILABLE, _NOT_REPEATED))
    frames = b"".join(again)
    if frames and not mux.closed:
        mux.send(memoryview(frames), None)
    return len(again), refused
