"""The stand-in agent answers as the real one was recorded.

Every recorded call is played again in order. Status code, first line of the error and payload must be equal, except:

- texts end after their first line: the real one appends a Rust backtrace;
- GetGuestDetails lists its handlers in random order; StatsContainer, GetMetrics measure: only their shape is compared;
- ListInterfaces: the real one names IPv4 family 1 and IPv6 family 0, against its own definition, which ours follows;
- `id` says `uid=0(root)` here, since this root file system has users;
- terminals: chunks, echoes and what Ctrl-C meets depend on timing, and `tty` finds a terminal here: only that they end;
- a WaitProcess that came while RemoveContainer was at work found the container half gone (13); here the removal takes
  no such time: it finds the process killed (137) or the container gone (3);
- `copyfile` lists the mounts of its container: its calls are compared, that output is not;
- output is compared as a stream for each process, not chunk by chunk.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from caa.wire.proto import agent
from caa.wire.proto.descriptors import methods

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "/bin/busybox")]

Play = Callable[..., Awaitable[Any]]

MEASURED = ("StatsContainer", "ListInterfaces")
KILLED = agent.WaitProcessResponse(status=137).SerializeToString()
HALF_REMOVED = (13, "Invalid container id")


def _decoded(method: str, payload: bytes) -> Message:
    service = "grpc.Health" if method in ("Check", "Version") else "grpc.AgentService"
    return methods(service)[method].response.FromString(payload)


def _fields(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def _assert_same(outcome: Any) -> None:
    method = outcome.request.method
    assert outcome.ours is not None, f"{method} was not answered"
    if method == "WaitProcess" and (outcome.recorded.code, outcome.recorded.text) == HALF_REMOVED:
        ours = outcome.ours
        assert (ours.code, ours.text, ours.payload) in ((3, "InvalidContainerId", b""), (0, "", KILLED))
        return
    assert (outcome.ours.code, outcome.ours.text) == (outcome.recorded.code, outcome.recorded.text), method
    ours, recorded = _decoded(method, outcome.ours.payload), _decoded(method, outcome.recorded.payload)
    if method == "GetGuestDetails":
        assert isinstance(ours, agent.GuestDetailsResponse)
        assert isinstance(recorded, agent.GuestDetailsResponse)
        for details in (ours.agent_details, recorded.agent_details):
            details.storage_handlers[:] = sorted(details.storage_handlers)
    if method in MEASURED:
        assert _fields(ours) == _fields(recorded)
    else:
        assert ours == recorded, method


def _assert_as_recorded(played: Any) -> None:
    _assert_calls(played)
    for key, data in played.recorded_output.items():
        if key[1] not in played.terminals:
            assert played.output[key].replace(b"(root)", b"") == data, key


def _of_terminal(played: Any, outcome: Any) -> bool:
    return outcome.request.message().exec_id in played.terminals


def _assert_calls(played: Any) -> None:
    assert played.outcomes
    for outcome in played.outcomes:
        if outcome.recorded is not None and outcome.request.method == "WaitProcess" and _of_terminal(played, outcome):
            assert outcome.ours.code in (0, 3)
        elif outcome.recorded is not None:
            _assert_same(outcome)
        else:
            assert outcome.ours is None, f"{outcome.request.method} was never answered by the real one"
    for outcome in played.read_errors:
        if _of_terminal(played, outcome):
            assert outcome.ours.code in (0, outcome.recorded.code)
        else:
            assert outcome.ours == outcome.recorded


@pytest.mark.parametrize("name", ["normal", "normal-rs", "exit3", "exec-io", "exec-io-rs", "attach-stdin"])
async def test_a_life_as_recorded(play: Play, name: str) -> None:
    _assert_as_recorded(await play(name))


async def test_copied_files_as_recorded(play: Play) -> None:
    played = await play("copyfile")
    _assert_calls(played)
    assert any(b"small" in output for output in played.output.values())


@pytest.mark.parametrize("name", ["command-not-found", "policy-deny-exec", "pull-error"])
async def test_an_error_as_recorded(play: Play, name: str) -> None:
    played = await play(name)
    if name == "pull-error":
        # "(lab)" is the lab's reason, ours is that nothing of this name is here.
        (pull,) = [one for one in played.outcomes if one.recorded and one.recorded.text.startswith("[CDH]")]
        assert pull.ours.text.split(" (")[0] == pull.recorded.text.split(" (")[0]
        played.outcomes.remove(pull)
    _assert_as_recorded(played)


@pytest.mark.parametrize("name", ["agent-replay", "agent-orphan-reads", "agent-orphans"])
async def test_dropped_and_repeated_calls_as_recorded(play: Play, name: str) -> None:
    _assert_as_recorded(await play(name, scale=0.2))
