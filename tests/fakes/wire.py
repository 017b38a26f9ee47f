"""The HTTP(S) server under every fake cloud: one thread a connection, faults before and after the effect, a journal.

A fake gives a `Service`; what it does with the bytes is its own affair. Faults are done here, so that each cloud only
says how a refusal of its looks.
"""

import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from tests.fakes.faults import REFUSALS, Fault, Faults

_HANG = 120.0  # seconds that an answer which never comes is held open


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. `query` has the last value of each name; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return _last_values(urlsplit(self.target).query)

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return _last_values(self.body.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """A fake cloud behind the wire. Called from many threads."""

    @property
    def faults(self) -> Faults: ...

    def call_of(self, request: Request) -> str:
        """The name of the call, by which faults are planned; "" for what no fault is done to."""

    def answer(self, request: Request) -> Reply:
        """Do it."""

    def refusal(self, fault: Fault, request: Request) -> Reply:
        """How this cloud says that it does not; only of `REFUSALS`."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One call as it came: when, its name, what became of it ("" for nothing special), the request."""

    at: float
    call: str
    fault: str
    request: Request


class Wire:
    """A service on a port of the loopback. Use it as a context."""

    def __init__(self, service: Service, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.service = service
        self.journal: list[Noted] = []
        self.mistakes: list[BaseException] = []
        self.ended = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.wire = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Wire":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()
        if self.mistakes:
            raise self.mistakes[0]

    def calls(self, *, fault: str | None = None) -> list[str]:
        """The names of the calls so far, all or those with one fate."""
        return [one.call for one in self.journal if one.call and fault in (None, one.fault)]

    def busiest_second(self) -> int:
        """The most calls that any second saw, refused ones left out."""
        times = [one.at for one in self.journal if one.call and one.fault != Fault.THROTTLED]
        return max((sum(begin <= at < begin + 1 for at in times) for begin in times), default=0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    wire: Wire

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.connections: set[socket.socket] = set()

    def end_connections(self) -> None:
        """Wake the threads that wait for a next request on a kept connection."""
        for one in list(self.connections):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news; a mistake of the fake fails the test at the end of the context."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError | ValueError):
            self.wire.mistakes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two of them wait 40 ms for each other
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """The journal is the log."""

    def _handle(self) -> None:
        wire, service = self.server.wire, self.server.wire.service
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(method=self.command, target=self.path, headers=headers, body=body)
        call = service.call_of(request)
        fault = service.faults.take(call) if call else None
        wire.journal.append(Noted(time.monotonic(), call, fault or "", request))
        if service.faults.latency:
            time.sleep(service.faults.latency)
        if fault in (Fault.TIMEOUT, Fault.RESET):
            self._drop(wire, reset=fault is Fault.RESET)
            return
        reply = service.refusal(fault, request) if fault in REFUSALS else service.answer(request)
        if fault is Fault.LOST_ANSWER:
            self.close_connection = True
            return
        self._send(Reply(headers=reply.headers, body=b"<<%% not an answer") if fault is Fault.MALFORMED else reply)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _handle

    def _drop(self, wire: Wire, *, reset: bool) -> None:
        self.close_connection = True
        if not reset:
            wire.ended.wait(_HANG)
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for key, value in reply.headers.items():
            if key.lower() not in ("content-length", "date", "server"):
                self.send_header(key, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD" and reply.status != 204:
            self.wfile.write(reply.body)


def _last_values(query: str) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(query, keep_blank_values=True).items()}
