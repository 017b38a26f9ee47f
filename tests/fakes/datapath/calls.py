"""Calls by hand: frames off a socket, and a shim's connection."""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

from caa.datapath import edits, frames

HEADER = struct.Struct(">IIBB")


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def read_frame(sock: socket.socket) -> tuple[int, int, bytes]:
    size, stream, kind, _ = HEADER.unpack(receive(sock, 10))
    return stream, kind, receive(sock, size)


def status_of(payload: bytes) -> tuple[int, str]:
    body = edits.last_bytes(payload, 1)
    return edits.last_varint(body, 1), edits.last_bytes(body, 2).decode()


@dataclass
class Shim:
    """A client with blocking calls on one connection."""

    path: Path
    sock: socket.socket = field(init=False)
    last: int = -1

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))

    def send(self, method: str, payload: bytes = b"", *, service: str = frames.AGENT, timeout: int = 0) -> int:
        self.last += 2
        self.sock.sendall(frames.call(service, method, stream=self.last, payload=payload, timeout=timeout))
        return self.last

    def answer(self) -> tuple[int, tuple[int, str], bytes]:
        """(stream, status, payload) of the next answer."""
        stream, kind, body = read_frame(self.sock)
        assert kind == 2
        return stream, status_of(body), edits.last_bytes(body, 2)

    def call(
        self, method: str, payload: bytes = b"", *, service: str = frames.AGENT, timeout: int = 0
    ) -> tuple[tuple[int, str], bytes]:
        sent = self.send(method, payload, service=service, timeout=timeout)
        stream, status, answer = self.answer()
        assert stream == sent
        return status, answer

    def ended(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.sock.close()
