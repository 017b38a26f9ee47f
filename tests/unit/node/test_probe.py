"""Which request gets which answer."""

import pytest

from caa.node.probe import Probe

PROBE = Probe({"/startup": lambda: "still starting", "/healthz": lambda: ""})


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /healthz HTTP/1.1", 200),
        ("HEAD /healthz HTTP/1.0", 200),
        ("GET /healthz?verbose HTTP/1.1", 200),
        ("GET /startup HTTP/1.1", 503),
        ("GET /metrics HTTP/1.1", 404),
        ("GET / HTTP/1.1", 404),
        ("POST /healthz HTTP/1.1", 400),
        ("GET /healthz", 400),
        ("GET /healthz HTTP/2", 400),
        ("", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_status(line: str, status: int) -> None:
    assert PROBE.answer(line)[0] == status


def test_the_reason_is_told() -> None:
    assert PROBE.answer("GET /startup HTTP/1.1") == (503, "still starting")
