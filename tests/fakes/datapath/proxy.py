"""TCP between relay and forwarder that breaks as networks do."""

import contextlib
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field


@dataclass
class CuttingProxy:
    """TCP between relay and forwarder that breaks as networks do.

    `cut(kind)` breaks what is there now. With `chance` set, each new connection breaks by itself after random bytes.
    `dark` refuses new connections. Kinds: `rst` and `fin` to both ends; `rst-relay`, `rst-guest`: one end hears it, the
    other only later; `hole`: everything is swallowed; `half`: only the forwarder's bytes still pass; `late`: what the
    relay sent is delivered after the relay has long given up.
    """

    dest: int
    chance: random.Random | None = None
    dark: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    pause: float = 1.2  # longest life of a connection that is silently broken
    KINDS = ("rst", "fin", "rst-relay", "rst-guest", "hole", "half", "late")

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._links: list[ProxiedLink] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.dark:
                reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.dest), timeout=5)
            except OSError:
                reset(near)
                continue
            self._links = [link for link in self._links if not link.over]
            self._links.append(ProxiedLink(self, near, far))

    def cut(self, kind: str) -> None:
        for link in self._links:
            link.breaking = kind
            link.wake()

    def stop(self) -> None:
        self._listener.close()
        self.cut("rst")


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class ProxiedLink:
    """One connection through the proxy, in a thread of its own."""

    def __init__(self, proxy: CuttingProxy, near: socket.socket, far: socket.socket) -> None:
        self.proxy, self.near, self.far = proxy, near, far
        self.breaking = ""
        self.over = False
        self._left = 1 << 62
        chance = proxy.chance
        if chance is not None:
            self._left = chance.randrange(1, 6000) if chance.random() < 0.25 else int(10 ** chance.uniform(3, 6.5))
        self._wake, self._woken = socket.socketpair()
        for sock in (near, far):
            sock.settimeout(5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._run, daemon=True).start()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _run(self) -> None:
        try:
            self._pass_until_cut()
            if self.breaking:
                self.proxy.cuts[self.breaking] = self.proxy.cuts.get(self.breaking, 0) + 1
                self._break(self.breaking)
        except OSError:
            pass
        finally:
            for sock in (self.near, self.far, self._wake, self._woken):
                sock.close()
            self.over = True

    def _pass_until_cut(self) -> None:
        other = {self.near: self.far, self.far: self.near}
        while not self.breaking:
            for sock in select.select([self.near, self.far, self._woken], [], [])[0]:
                if sock is self._woken:
                    return
                data = sock.recv(65536)
                if not data:
                    return
                chance = self.proxy.chance
                if chance is None:
                    other[sock].sendall(data)
                    continue
                other[sock].sendall(data[: self._left])
                self._left -= len(data)
                if self._left <= 0:
                    self.breaking = chance.choice(CuttingProxy.KINDS)
                    return

    def _break(self, kind: str) -> None:
        pause = self.proxy.pause * (self.proxy.chance.random() if self.proxy.chance else 1)
        if kind in ("rst", "rst-relay"):
            reset(self.near)
        if kind in ("rst", "rst-guest"):
            reset(self.far)
        if kind in ("rst-relay", "rst-guest", "hole"):
            time.sleep(pause)
        elif kind == "half":
            self._pass_answers(time.monotonic() + pause)
        elif kind == "late":
            time.sleep(pause)
            self.near.settimeout(0.05)
            while data := self.near.recv(65536):
                self.far.sendall(data)

    def _pass_answers(self, end: float) -> None:
        while time.monotonic() < end:
            if select.select([self.far], [], [], 0.05)[0]:
                data = self.far.recv(65536)
                if not data:
                    return
                self.near.sendall(data)
