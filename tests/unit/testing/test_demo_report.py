"""What the demo prints."""

import json

from caa.testing.demo.report import BAR, Result, Span, facts, verdict, waterfall


def test_the_object_is_json_with_every_field() -> None:
    said = json.loads(json.dumps(Result(ok=True, provider="local", timings_ms={"start": 1.5}).as_json()))
    assert said == {
        "ok": True, "provider": "local", "pods": 1, "timings_ms": {"start": 1.5}, "exec": {}, "network": {},
        "survived": {}, "left_over": {}, "error": "", "logs": [],
    }  # fmt: skip
    assert list(said)[:2] == ["ok", "error"]
    assert list(said)[-1] == "logs"


def test_bars_stand_on_one_axis() -> None:
    first, second = waterfall([Span("CreateVM", 0.0, 50.0), Span("StartVM", 50.0, 50.0)])
    half = BAR // 2
    assert first == f"  CreateVM {0:7} {50:7} ms  {'█' * half}"
    assert second == f"  StartVM  {50:7} {50:7} ms  {' ' * half}{'█' * half}"


def test_a_bar_is_never_empty_and_the_axis_never_too_long() -> None:
    lines = waterfall([Span("a", 0.0, 0.01), Span("b", 0.0, 1000.0), Span("c", 999.0, 1.0)])
    bars = [line.split(" ms  ")[1] for line in lines]
    assert bars[0] == "█"
    assert bars[1] == "█" * BAR
    assert bars[2].endswith("█")
    assert max(map(len, bars)) <= BAR


def test_no_spans_and_spans_of_no_length() -> None:
    assert waterfall([]) == []
    assert len(waterfall([Span("a", 0.0, 0.0)])) == 1


def test_the_verdict_of_a_clean_run() -> None:
    first, last = verdict(Result(ok=True))
    assert "nothing left" in first
    assert last == "demo: passed"


def test_the_verdict_names_what_is_left_and_why() -> None:
    assert verdict(Result(left_over={"link": ["vxlan1"], "mount": ["/a", "/b"]})) == [
        "  left over: link: vxlan1",
        "  left over: mount: /a",
        "  left over: mount: /b",
        "demo: FAILED: something is left over",
    ]
    assert verdict(Result(error="StartVM: no")) == ["demo: FAILED: StartVM: no"]


def test_the_verdict_of_an_interrupted_run() -> None:
    assert verdict(Result(error="interrupted")) == ["demo: interrupted, all removed"]


def test_facts() -> None:
    assert facts("network", {"address": "10.0.0.1", "copied": 50}) == ["network", "  address: 10.0.0.1", "  copied: 50"]
