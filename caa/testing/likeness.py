"""Whether a replay on the stand-in agent came out as it was recorded with the real one.

Every recorded call is played again in order. Status code, first line of the error and payload must be equal, except:

- texts end after their first line: the real one appends a Rust backtrace;
- GetGuestDetails lists its handlers in random order; StatsContainer, GetMetrics measure: only their shape is compared;
- ListInterfaces: the real one names IPv4 family 1 and IPv6 family 0, against its own definition, which ours follows;
- `id` says `uid=0(root)` here, since this root file system has users;
- terminals: chunks, echoes and what Ctrl-C meets depend on timing, and `tty` finds a terminal here: only that they end;
- a WaitProcess that came while RemoveContainer was at work found the container half gone (13); here the removal takes
  no such time: it finds the process killed (137) or the container gone (3);
- CreateVM names the agent's socket, which is elsewhere here;
- `copyfile` lists the mounts of its container: its calls are compared, that output is not;
- output is compared as a stream for each process, not chunk by chunk.
"""

from google.protobuf.message import Message

from caa.testing.replay import Answer, Played
from caa.testing.traces import Frame
from caa.wire.proto import agent
from caa.wire.proto.descriptors import methods

MEASURED = ("StatsContainer", "ListInterfaces", "CreateVM")
KILLED = agent.WaitProcessResponse(status=137).SerializeToString()
HALF_REMOVED = (13, "Invalid container id")


def assert_as_recorded(played: Played) -> None:
    """Every call, and the whole output of every process that had no terminal."""
    assert_calls(played)
    for key, data in played.recorded_output.items():
        if key[1] not in played.terminals:
            assert played.output[key].replace(b"(root)", b"") == data, key


def assert_calls(played: Played) -> None:
    """Every call."""
    assert played.outcomes
    for outcome in played.outcomes:
        method, ours, recorded = outcome.request.method, outcome.ours, outcome.recorded
        if recorded is None:
            assert ours is None, f"{method} was never answered by the real one"
        else:
            assert ours is not None, f"{method} was not answered"
            on_terminal = method == "WaitProcess" and _on_terminal(played, outcome.request)
            _assert_call(outcome.request, ours, recorded=recorded, on_terminal=on_terminal)
    for outcome in played.read_errors:
        assert outcome.ours is not None
        assert outcome.recorded is not None
        if _on_terminal(played, outcome.request):
            assert outcome.ours.code in (0, outcome.recorded.code)
        else:
            assert outcome.ours == outcome.recorded


def _on_terminal(played: Played, request: Frame) -> bool:
    return getattr(request.message(), "exec_id", None) in played.terminals


def _assert_call(request: Frame, ours: Answer, *, recorded: Answer, on_terminal: bool) -> None:
    method = request.method
    if on_terminal:
        assert ours.code in (0, 3)
    elif method == "WaitProcess" and (recorded.code, recorded.text) == HALF_REMOVED:
        assert (ours.code, ours.text, ours.payload) in ((3, "InvalidContainerId", b""), (0, "", KILLED))
    else:
        assert (ours.code, ours.text) == (recorded.code, recorded.text), method
        _assert_payload(request, ours, recorded=recorded)


def _assert_payload(request: Frame, ours: Answer, *, recorded: Answer) -> None:
    response = methods(request.service)[request.method].response
    mine, theirs = response.FromString(ours.payload), response.FromString(recorded.payload)
    for each in (mine, theirs):
        if isinstance(each, agent.GuestDetailsResponse):
            each.agent_details.storage_handlers[:] = sorted(each.agent_details.storage_handlers)
    if request.method in MEASURED:
        assert _fields(mine) == _fields(theirs), request.method
    else:
        assert mine == theirs, request.method


def _fields(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}
