"""Recordings are read into frames and events."""

import base64
import json
from pathlib import Path

from caa.testing import traces
from caa.testing.traces import Event, Frame
from caa.wire.proto import agent, hypervisor

TRACES = Path(__file__).resolve().parents[3] / "tests/data/traces"


def test_every_recording_is_understood() -> None:
    names = sorted(TRACES.glob("*.jsonl"))
    assert names
    for name in names:
        for entry in traces.read(name):
            if isinstance(entry, Frame) and entry.side != "driver" and not entry.cut:
                assert entry.message().SerializeToString() is not None


def test_a_request() -> None:
    frame = traces.frames(traces.read(TRACES / "normal.jsonl"), "hypervisor")[0]
    assert (frame.method, frame.stream, frame.to_agent, frame.timeout_nano) == ("CreateVM", 1, True, 0)
    assert frame.metadata == (("containerd-namespace-ttrpc", "k8s.io"),)
    message = frame.message()
    assert isinstance(message, hypervisor.CreateVMRequest)
    assert message.annotations["io.kubernetes.cri.sandbox-name"] == "normal42477"


def test_an_answer_and_its_request() -> None:
    calls = list(traces.exchanges(traces.read(TRACES / "exit3.jsonl"), "agent"))
    waits = [call for call in calls if call.request.method == "WaitProcess"]
    codes = [(call.answer.code, call.answer.status) for call in waits if call.answer]
    assert (5, (5, "InvalidExecId")) in codes
    first = waits[1].answer
    assert first is not None
    answer = first.message()
    assert isinstance(answer, agent.WaitProcessResponse)
    assert answer.status == 3


def test_events_and_cut_payloads(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    frame = {
        "t_ms": 1,
        "conn": "agent",
        "conn_id": 3,
        "dir": ">shim",
        "stream": 1,
        "type": 2,
        "flags": 0,
        "service": "grpc.AgentService",
        "method": "ReadStdout",
        "status": None,
        "len": 70000,
        "payload_b64": base64.b64encode(b"\n\x00").decode(),
    }
    path.write_text('{"t_ms":0,"conn":"agent","conn_id":3,"event":"close","by":"shim"}\n' + json.dumps(frame) + "\n")
    event, answer = traces.read(path)
    assert isinstance(event, Event)
    assert (event.name, event.facts) == ("close", {"by": "shim"})
    assert isinstance(answer, Frame)
    assert answer.cut
    assert answer.status is None
    assert answer.code == 0
