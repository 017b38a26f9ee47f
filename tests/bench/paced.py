"""`python -m tests.bench.paced RATE SOCKET...`: a shim on each socket, so many calls a second over all, until SIGTERM.

SIGUSR1 ends a phase. At the end one JSON object for each phase is printed: calls, and the longest and the median of the
longest calls of each pod, in milliseconds. A wrong or missing answer ends it with status 1.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

HEAD = struct.Struct(">IIBB")
CHECK = b"\n\x0bgrpc.Health\x12\x05Check"
LONGEST_WAIT = 20.0
LOOK = 0.002


@dataclass
class Pod:
    """One shim's connection, with at most one call in flight."""

    sock: socket.socket
    stream: int = 1
    begun: float = 0.0

    def ask(self) -> None:
        """Begin a call."""
        self.begun = time.monotonic()
        self.sock.sendall(HEAD.pack(len(CHECK), self.stream, 1, 0) + CHECK)

    def answered(self) -> float:
        """Take the answer; returns how long it took. Raises `ValueError` when it is not the one that was due."""
        data = self.sock.recv(4096)
        if len(data) < HEAD.size or HEAD.unpack_from(data)[:3] != (len(data) - HEAD.size, self.stream, 2):
            raise ValueError(f"{len(data)} bytes are not the answer to call {self.stream}")
        took, self.begun = time.monotonic() - self.begun, 0.0
        self.stream += 2
        return took


@dataclass
class Load:
    """All pods in turn, each again when its answer has come."""

    pods: list[Pod]
    rate: float
    phases: list[dict[int, list[float]]] = field(default_factory=lambda: [{}])
    over: bool = False
    _by_fd: dict[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Ask until told to end, then wait for the last answers."""
        poll = select.epoll()
        for number, pod in enumerate(self.pods):
            poll.register(pod.sock.fileno(), select.EPOLLIN)
            self._by_fd[pod.sock.fileno()] = number
        due, at = time.monotonic(), 0
        while not self.over or any(pod.begun for pod in self.pods):
            now = time.monotonic()
            while not self.over and now >= due:
                at = self._ask_next(at)
                due = max(due + 1 / self.rate, now - 0.1)
            self._hear(poll.poll(LOOK if self.over else max(min(due - now, LOOK), 0)))
            if self.over and any(pod.begun and now - pod.begun > LONGEST_WAIT for pod in self.pods):
                raise TimeoutError("an answer does not come")

    def _ask_next(self, at: int) -> int:
        """Ask the next pod that has no call in flight."""
        for step in range(len(self.pods)):
            pod = self.pods[(at + step) % len(self.pods)]
            if not pod.begun:
                pod.ask()
                return at + step + 1
        return at

    def _hear(self, events: list[tuple[int, int]]) -> None:
        for fd, _ in events:
            number = self._by_fd[fd]
            self.phases[-1].setdefault(number, []).append(self.pods[number].answered())


def summary(phase: dict[int, list[float]]) -> dict[str, float]:
    """Milliseconds."""
    longest = sorted(max(took) * 1e3 for took in phase.values())
    every = sorted(one * 1e3 for took in phase.values() for one in took)
    return {
        "calls": len(every),
        "p50": every[len(every) // 2],
        "longest": longest[-1],
        "longest_p50": longest[len(longest) // 2],
    }


def main() -> None:
    """Connect, say READY, ask."""
    os.setpriority(os.PRIO_PROCESS, 0, -10 if os.geteuid() == 0 else 0)  # to start a relay must not stop our clock
    pods = []
    for path in sys.argv[2:]:
        pods.append(Pod(socket.socket(socket.AF_UNIX)))
        pods[-1].sock.settimeout(LONGEST_WAIT)
        pods[-1].sock.connect(path)
    load = Load(pods, float(sys.argv[1]))
    signal.signal(signal.SIGUSR1, lambda *_: load.phases.append({}))
    signal.signal(signal.SIGTERM, lambda *_: setattr(load, "over", True))
    print("READY", flush=True)
    load.run()
    print(json.dumps([summary(phase) for phase in load.phases if phase]), flush=True)


if __name__ == "__main__":
    main()
