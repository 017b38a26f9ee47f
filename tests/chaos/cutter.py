"""The link between relay and pod VMs, cut at random bytes: a proxy in the worker's network that the relay cannot see.

The kernel redirects what goes to the forwarder's port here (nft, in namespaces of our own); the proxy dials the real
forwarder with a mark that is spared. So it can cut inside any byte, either side alone, or let every packet vanish.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

FORWARDER = 15150
LISTEN = 9151
MARK = 0xCA05
_ORIGINAL_DST = 80  # SO_ORIGINAL_DST, linux/netfilter_ipv4.h
_TABLE = f"""
table ip chaos {{
  set held {{ type ipv4_addr; }}
  chain out {{
    type filter hook output priority -300; policy accept;
    ip daddr @held tcp dport {FORWARDER} drop
  }}
  chain in {{
    type filter hook prerouting priority -300; policy accept;
    ip saddr @held tcp sport {FORWARDER} drop
  }}
  chain redirected {{
    type nat hook output priority -100; policy accept;
    meta mark {MARK:#x} accept
    tcp dport {FORWARDER} redirect to :{LISTEN}
  }}
}}
"""


class Cut(StrEnum):
    """How a connection ends."""

    RST = "rst"
    FIN = "fin"
    HALF_OPEN = "half-open"  # one side is told, the other hears nothing any more
    HOLE = "black hole"  # packets vanish both ways, new connections too


@dataclass(eq=False)
class Wire:
    """One connection of the relay, and ours to the pod VM."""

    address: str
    relay: asyncio.StreamWriter
    vm: asyncio.StreamWriter
    fuse: int | None = None  # bytes until the cut, of the direction `burning`
    burning: bool = False  # True: towards the pod VM
    blown: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def until_cut(self, data: bytes, towards_vm: bool) -> bytes:
        """The part of `data` that still goes through; sets `blown` at the cut."""
        if self.fuse is None or towards_vm != self.burning:
            return data
        part = data[: self.fuse]
        self.fuse -= len(part)
        if not self.fuse:
            self.silent = True
            self.blown.set()
        return part

    def end(self, *, reset: bool) -> None:
        for side in (self.relay, self.vm):
            close(side, reset=reset)


def close(side: asyncio.StreamWriter, *, reset: bool) -> None:
    """By RST, or by FIN as far as nothing unread is there."""
    if reset and not side.is_closing():
        side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.transport.abort()
    side.close()


class Cutter:
    """Start it before the first pod. `cut` takes the youngest connection to an address."""

    def __init__(self, *, longest_hole: float) -> None:
        self.made: Counter[str] = Counter()
        self.wires: dict[str, list[Wire]] = {}
        self._longest_hole = longest_hole
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "0.0.0.0", LISTEN)
        await _nft(_TABLE)

    async def stop(self) -> None:
        """Twice is once."""
        server, self._server = self._server, None
        if server is None:
            return
        await _nft("delete table ip chaos")
        server.close()
        for wire in [one for wires in self.wires.values() for one in wires]:
            wire.end(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cut(self, address: str, *, chance: random.Random) -> None:
        """One cut of a random kind after a random number of bytes. `TimeoutError` if nobody dials for a minute."""
        kind = chance.choice(list(Cut))
        wire = await self._youngest(address)
        wire.burning = chance.random() < 0.5
        wire.fuse = chance.choice((1, 5, chance.randrange(1, 200), chance.randrange(1, 20_000)))
        await _first(wire.blown, wire.gone)
        if not wire.blown.is_set():
            return  # it ended before: a hole before this one outlived it
        self.made[kind] += 1
        if kind is Cut.HOLE:
            wire.silent = chance.random() < 0.5  # else the same connection may go on afterwards
            await self._hole(address, chance.uniform(1, self._longest_hole))
        elif kind is Cut.HALF_OPEN:
            close(chance.choice((wire.relay, wire.vm)), reset=chance.random() < 0.5)
            await asyncio.sleep(chance.uniform(0, self._longest_hole))
        if kind is not Cut.HOLE or wire.silent:
            wire.end(reset=kind is not Cut.FIN)
        wire.fuse = None
        if kind in (Cut.HOLE, Cut.HALF_OPEN):
            await self._light(address, chance.uniform(0.1, 0.25) * self._longest_hole)

    async def _light(self, address: str, seconds: float) -> None:
        """Leave the pod alone: darkness after darkness would outlast the shims' own deadlines of 30 s."""
        await self._youngest(address)
        await asyncio.sleep(seconds)

    async def _hole(self, address: str, seconds: float) -> None:
        await _nft(f"add element ip chaos held {{ {address} }}")
        try:
            await asyncio.sleep(seconds)
        finally:
            await _nft(f"delete element ip chaos held {{ {address} }}")

    async def _youngest(self, address: str) -> Wire:
        async with asyncio.timeout(60):
            while True:
                living = [one for one in self.wires.get(address, ()) if not one.gone.is_set() and not one.silent]
                if living:
                    return living[-1]
                self._changed.clear()
                await self._changed.wait()

    async def _accept(self, reader: asyncio.StreamReader, relay: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        target = relay.get_extra_info("socket").getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
        address = socket.inet_ntoa(target[4:8])
        try:
            back, vm = await _dial(address)
        except (OSError, TimeoutError):
            close(relay, reset=True)
            return
        wire = Wire(address, relay, vm)
        self.wires.setdefault(address, []).append(wire)
        self._changed.set()
        with contextlib.suppress(asyncio.CancelledError):  # by `stop`; nobody waits for this task but it
            await self._run(wire, reader, back=back)

    async def _run(self, wire: Wire, reader: asyncio.StreamReader, *, back: asyncio.StreamReader) -> None:
        try:
            await asyncio.gather(_pump(wire, reader, towards_vm=True), _pump(wire, back, towards_vm=False))
        finally:
            wire.gone.set()
            wire.end(reset=False)
            self.wires[wire.address].remove(wire)


async def _pump(wire: Wire, reader: asyncio.StreamReader, *, towards_vm: bool) -> None:
    writer = wire.vm if towards_vm else wire.relay
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(part := wire.until_cut(data, towards_vm))
            await writer.drain()
            while wire.silent:
                await asyncio.sleep(0.02)
                if wire.relay.is_closing() and wire.vm.is_closing():
                    return
            if part != data:
                writer.write(data[len(part) :])
        if not wire.silent:
            writer.close()


async def _dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        made.setblocking(False)
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_connect(made, (address, FORWARDER))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _nft(text: str) -> None:
    process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=asyncio.subprocess.PIPE)
    await process.communicate(text.encode())
    assert process.returncode == 0, text
