"""The framework of the fakes does what it says: each fault as a client sees it, the ledger, the limit of calls."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.fakes.faults import Fault, Faults
from tests.fakes.ledger import Ledger, Resource
from tests.fakes.wire import Reply, Request, Wire


class Counter:
    """A cloud with one call, which counts."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.count = 0

    def call_of(self, request: Request) -> str:
        return request.query.get("call", "")

    def answer(self, request: Request) -> Reply:
        self.count += 1
        return Reply(body=str(self.count).encode(), headers={"X-Kept": "yes"})

    def refusal(self, fault: Fault, request: Request) -> Reply:
        return Reply(status=429 if fault is Fault.THROTTLED else 403, body=fault.encode())


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(Counter()) as made:
        yield made


@contextmanager
def client(wire: Wire, timeout: float = 5) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(wire.url).netloc, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def ask(wire: Wire, call: str = "count", timeout: float = 5) -> tuple[int, bytes]:
    with client(wire, timeout) as connection:
        connection.request("POST", f"/?call={call}", b"body")
        with connection.getresponse() as response:
            return response.status, response.read()


def test_a_call_and_the_journal(wire: Wire) -> None:
    assert ask(wire) == (200, b"1")
    assert ask(wire, "") == (200, b"2")
    assert wire.calls() == ["count"]
    assert wire.journal[0].request.body == b"body"


@pytest.mark.parametrize(
    ("fault", "seen", "done"),
    [
        (Fault.THROTTLED, (429, b"throttled"), 0),
        (Fault.CAPACITY, (403, b"capacity"), 0),
        (Fault.TIMEOUT, TimeoutError, 0),
        (Fault.RESET, ConnectionResetError, 0),
        (Fault.LOST_ANSWER, http.client.RemoteDisconnected, 1),
        (Fault.MALFORMED, (200, b"<<%% not an answer"), 1),
    ],
)
def test_each_fault_once(wire: Wire, fault: Fault, seen: object, done: int) -> None:
    wire.service.faults.plan("count", fault)
    if isinstance(seen, tuple):
        assert ask(wire) == seen
    else:
        with pytest.raises(seen):  # type: ignore[call-overload]
            ask(wire, timeout=0.3)
    assert ask(wire) == (200, str(done + 1).encode())
    assert wire.calls(fault=fault) == ["count"]


def test_the_limit_of_calls(wire: Wire) -> None:
    wire.service.faults.calls_per_second = 5
    answers = [ask(wire)[0] for _ in range(10)]
    assert answers[:5] == [200] * 5
    assert 429 in answers
    assert wire.busiest_second() <= 10


def test_the_ledger_adds_up() -> None:
    ledger = Ledger()
    assert not ledger
    ledger.add(Resource(kind="instance", id="i-1", cost=0.5))
    ledger.add(Resource(kind="volume", id="v-1", cost=0.25))
    assert ledger.cost_per_hour() == 0.75
    ledger.remove("instance", "i-1")
    ledger.remove("instance", "i-1")
    assert [one.id for one in ledger.alive()] == ["v-1"]
    assert "volume v-1" in str(ledger)


def test_room_by_type_and_zone() -> None:
    faults = Faults(full={("a", ""), ("b", "1")})
    assert not faults.has_room("a", "2")
    assert not faults.has_room("b", "1")
    assert faults.has_room("b", "2")
