"""Random fragmentation through both hops: 200 000 requests, and each of their 200 000 answers compared."""

import random
import threading
import time
from typing import Any

import pytest

from caa.datapath import edits, frames

CALLS = 200_000  # requests, each with its answer, over all connections
CONNECTIONS = 4
WINDOW = 400  # calls in flight of one connection


class Caller:
    """One connection: a thread that sends in fragments, one that compares."""

    def __init__(self, shim: Any, calls: int, seed: int) -> None:
        self.shim = shim
        self.calls = calls
        self.chance = random.Random(seed)
        self.expected: dict[int, bytes] = {}
        self.room = threading.Semaphore(WINDOW)
        self.compared = 0
        self.errors: list[str] = []

    def send(self) -> None:
        chance = self.chance
        waiting = bytearray()
        for place in range(self.calls):
            stream = 2 * place + 1
            size = chance.choice((0, 1, 12, 80, 300)) if chance.random() < 0.995 else chance.choice((20_000, 300_000))
            payload = chance.randbytes(size)
            if not self.room.acquire(timeout=0.001):
                self._flush(waiting, 0)
                self.room.acquire()
            self.expected[stream] = payload
            service = frames.AGENT if chance.random() < 0.9 else "grpc.Health"
            waiting += frames.call(service, "Echo", stream=stream, payload=payload)
            if len(waiting) > 3000:
                self._flush(waiting, chance.randint(0, 40))
        self._flush(waiting, 0)

    def _flush(self, waiting: bytearray, keep: int) -> None:
        while len(waiting) > keep:
            size = self.chance.choice((1, 5, 10, 13, 900, 3000, 70_000))
            size = min(size, len(waiting) - keep)
            self.shim.sock.sendall(waiting[:size])
            del waiting[:size]

    def compare(self) -> None:
        splitter = frames.Splitter(frames.RESPONSE)
        while self.compared < self.calls:
            data = self.shim.sock.recv(1 << 17)
            if not data:
                self.errors.append("the connection ended")
                return
            for stream, frame in splitter.feed(data):
                assert isinstance(frame, bytes)
                if edits.last_bytes(frame[10:], 2) != self.expected.pop(stream, None):
                    self.errors.append(f"stream {stream} got another answer")
                self.compared += 1
                self.room.release()


@pytest.fixture
def callers(relay: Any, make_agent: Any, start_guest: Any, shim: Any) -> list[Caller]:
    agent = make_agent("fuzz.sock", fragments=True, seed=7)
    guest = start_guest(agent.path)
    assert relay.ask("Open", guest.opening.payload())[0] == (0, "")
    calls = CALLS // CONNECTIONS
    return [Caller(shim(relay.agent_socket()), calls, seed) for seed in range(CONNECTIONS)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_answer_of_200_000_is_the_callers_own(callers: list[Caller]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for one in callers for work in (one.send, one.compare)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert [one.errors for one in callers] == [[]] * CONNECTIONS
    assert sum(one.compared for one in callers) == CALLS
    print(f"{CALLS} calls in {time.monotonic() - started:.1f} s")  # noqa: T201  # a figure for the record
