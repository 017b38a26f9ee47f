"""Traffic through the pod network, as a neighbour sends it: pings and a numbered TCP stream, with the longest silence.

    nsenter --net=/run/netns/client -- python -m tests.chaos.traffic ADDRESS PORT

Runs until its standard input ends, then prints one JSON object.
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from caa.testing.demo import world

PORT = 9000
EVERY = 0.02  # seconds between two pings
_WINDOW = 16384  # a small receive buffer: a large one would hide seconds of silence
_CHUNK = 4096


@dataclass
class Silence:
    """The longest time between two signs of life."""

    count: int = 0
    longest: float = 0.0
    at: str = ""  # when the longest ended, to be looked up in the logs
    _last: float = field(default_factory=time.monotonic)

    def heard(self, count: int = 1) -> None:
        now = time.monotonic()
        if now - self._last > self.longest:
            self.longest, self.at = now - self._last, datetime.now(UTC).isoformat(timespec="milliseconds")
        self._last = now
        self.count += count


def echo_request(number: int) -> bytes:
    """An ICMP echo request (RFC 792) with identifier 0xca0 and the number's low 16 bits as sequence."""
    body = struct.pack("!HH", 0xCA0, number & 0xFFFF)
    total = 0x0800 + sum(struct.unpack("!HH", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", 8, 0, total ^ 0xFFFF) + body


async def _ping(address: str, silence: Silence, sent: Silence) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setblocking(False)
        raw.connect((address, 0))
        listening = asyncio.create_task(_hear_pings(raw, silence))
        try:
            for number in itertools.count():
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(raw, echo_request(number))
                    sent.count += 1
                await asyncio.sleep(EVERY)
        finally:
            listening.cancel()


async def _hear_pings(raw: socket.socket, silence: Silence) -> None:
    loop = asyncio.get_running_loop()
    while True:
        packet = await loop.sock_recv(raw, 2048)
        if packet[20:21] == b"\0":  # an echo reply behind an IPv4 header without options
            silence.heard()


def _numbers() -> Iterator[bytes]:
    return (b"%d\n" % number for number in itertools.count(1))


async def _copy(address: str, port: int, *, silence: Silence) -> None:
    """Read and compare at a quarter of a MiB a second; raises `ValueError` on the first byte that is wrong."""
    loop = asyncio.get_running_loop()
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        stream.setblocking(False)
        await loop.sock_connect(stream, (address, port))
        numbers, due = _numbers(), b""
        while chunk := await loop.sock_recv(stream, _CHUNK):
            silence.heard(len(chunk))
            while len(due) < len(chunk):
                due += b"".join(itertools.islice(numbers, 500))
            if not due.startswith(chunk):
                raise ValueError(f"after {silence.count} bytes of the TCP stream came {chunk[:40]!r}")
            due = due[len(chunk) :]
            await asyncio.sleep(_CHUNK / (256 * 1024))
    raise ValueError(f"the TCP stream ended after {silence.count} bytes")


async def _measure(address: str, port: int) -> dict[str, Any]:
    pings, sent, stream = Silence(), Silence(), Silence()
    pinging = asyncio.create_task(_ping(address, pings, sent))
    copying = asyncio.create_task(_copy(address, port, silence=stream))
    await asyncio.to_thread(sys.stdin.read)
    for silence in (pings, stream):
        silence.heard(0)
    found = {
        "pings_sent": sent.count, "pings_lost": sent.count - pings.count, "ping_silence_ms": _ms(pings),
        "ping_silence_ended": pings.at,
        "tcp_bytes": stream.count, "tcp_silence_ms": _ms(stream), "tcp_error": _error(copying),
    }  # fmt: skip
    for task in (pinging, copying):
        task.cancel()
    await asyncio.gather(pinging, copying, return_exceptions=True)
    return found


def _ms(silence: Silence) -> float:
    return round(silence.longest * 1000, 1)


def _error(task: "asyncio.Task[None]") -> str:
    return repr(task.exception()) if task.done() else ""


class Neighbour:
    """The program above, running in the client's network namespace."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, address: str) -> "Neighbour":
        argv = world.in_netns(world.CLIENT, sys.executable, "-m", "tests.chaos.traffic", address, str(PORT))
        return cls(await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE))

    async def finish(self) -> dict[str, Any]:
        """What it measured; empty when it broke down."""
        try:
            async with asyncio.timeout(20):
                out, _ = await self._process.communicate(b"")  # which ends its input
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            out = b""
        found: dict[str, Any] = json.loads(out) if out else {}
        return found


if __name__ == "__main__":
    os.nice(-5)  # it measures the network's silence, not its own wait for a processor
    print(json.dumps(asyncio.run(_measure(sys.argv[1], int(sys.argv[2])))))  # noqa: T201
