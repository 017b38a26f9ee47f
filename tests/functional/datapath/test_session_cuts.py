"""Cuts at random bytes under load: nothing is lost, nothing comes twice, nothing is changed."""

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from caa.datapath import edits, greeting

OK = (0, "")
# Payloads that look like control frames.
TRAPS = b"".join(greeting.control(kind, bytes(8)) for kind in (greeting.ACK, greeting.END, greeting.PING))


@dataclass
class Load:
    """One connection of a shim with up to 6 calls in flight; every answer is compared with what it has to be."""

    shim: Any
    chance: random.Random
    blob: bytes
    waiting: dict[int, bytes] = field(default_factory=dict)
    calls: int = 0
    moved: int = 0
    longest: float = 0.0

    def size(self) -> int:
        kind = self.chance.random()
        bound = 200 if kind < 0.55 else 40_000 if kind < 0.85 else 300_000 if kind < 0.97 else 1_100_000
        return self.chance.randrange(bound)

    def ask(self) -> None:
        kind, size = self.chance.random(), self.size()
        if kind < 0.4:
            stream = self.shim.send("ReadStdout", edits.varint_field(3, size))
            self.waiting[stream] = bytes(size)
        else:
            at = self.chance.randrange(len(self.blob) - size)
            payload = self.blob[at : at + size]
            self.waiting[self.shim.send("Echo", payload)] = payload
        if self.chance.random() < 0.05:
            time.sleep(self.chance.random() * 0.2)

    def hear(self) -> None:
        stream, status, answer = self.shim.answer()
        assert status == OK
        assert stream in self.waiting, f"stream {stream} was answered before"
        assert answer == self.waiting.pop(stream), f"the answer to stream {stream} was changed"
        self.calls += 1
        self.moved += len(answer)

    def run(self, end: threading.Event) -> None:
        while not end.is_set():
            while len(self.waiting) < 6:
                self.ask()
            began = time.monotonic()
            self.hear()
            self.longest = max(self.longest, time.monotonic() - began)
        while self.waiting:
            self.hear()


@dataclass
class Checks:
    """A connection that asks for the agent's health, as shims do; each is answered once and soon."""

    shim: Any
    count: int = 0
    longest: float = 0.0

    def run(self, end: threading.Event) -> None:
        while not end.is_set():
            began = time.monotonic()
            status, answer = self.shim.call("Check", b"agent", service="grpc.Health")
            assert status == OK
            assert answer in (b"agent", b"\x08\x01")
            self.longest = max(self.longest, time.monotonic() - began)
            self.count += 1
            time.sleep(0.02)


def run_all(loads: list[Any], end: threading.Event) -> list[BaseException]:
    """Run each in a thread until `end` is set; what went wrong ends all."""
    errors: list[BaseException] = []

    def run(load: Any) -> None:
        try:
            load.run(end)
        except BaseException as error:
            errors.append(error)
            end.set()

    threads = [threading.Thread(target=run, args=(load,)) for load in loads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), f"a load hangs; {errors}"
    return errors


@pytest.fixture
def broken_up(start_guest: Any, make_agent: Any, start_proxy: Any) -> Callable[..., tuple[Any, Any]]:
    """A forwarder with its agent behind a proxy that cuts; `fragments`: the agent writes in small pieces."""

    def start(chance: random.Random, fragments: bool) -> tuple[Any, Any]:
        agent = make_agent("agent.sock", fragments=fragments, seed=chance.randrange(1 << 30))
        guest = start_guest(agent.path)
        proxy = start_proxy(guest.port, chance)
        return proxy, replace(guest.opening, port=proxy.port)

    return start


@pytest.mark.parametrize("fragments", [False, True])
def test_no_byte_is_lost_or_doubled(start_relay: Any, broken_up: Any, shim: Any, fragments: bool) -> None:
    seed = int(os.environ.get("CAA_CHAOS_SEED", "0")) or random.randrange(1, 1 << 30)
    cuts = int(os.environ.get("CAA_CHAOS_CUTS", "15"))
    print(f"seed {seed}")  # noqa: T201  # pytest shows it when the test fails
    chance = random.Random(seed)
    relay = start_relay("--link-silence-seconds", "0.6")
    proxy, opening = broken_up(chance, fragments)
    assert relay.ask("Open", opening.payload()) == (OK, b"")
    blob = b"".join(chance.randbytes(chance.randrange(900)) + TRAPS for _ in range(5000))
    loads = [Load(shim(relay.agent_socket()), random.Random(seed + number), blob) for number in range(2)]
    checks = Checks(shim(relay.agent_socket()))
    end = threading.Event()

    def stop_after_cuts() -> None:
        last = time.monotonic() + 45 + cuts
        while sum(proxy.cuts.values()) < cuts and time.monotonic() < last:
            end.wait(0.05)
            if end.is_set():
                break
        proxy.chance = None
        end.set()

    threading.Thread(target=stop_after_cuts).start()
    errors = run_all([*loads, checks], end)
    assert not errors, f"seed {seed}: {errors}; {relay.process.text()[-2000:]}"
    assert sum(proxy.cuts.values()) >= cuts, f"seed {seed}: {proxy.cuts}"
    assert checks.longest < 10
    assert relay.links() == [("pod", True, 3)]
    print(proxy.cuts, [(load.calls, load.moved, load.longest) for load in loads], checks)  # noqa: T201
