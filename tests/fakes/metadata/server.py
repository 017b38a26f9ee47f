"""The HTTP side of the fake metadata services: a thread on one address, faults on demand, a record of who asked what.

Rules of the cloud itself are in `clouds.py`. A fake refuses what the real service refuses; what is not known is 404.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from podvm.clouds.metadata import Service


@dataclass(frozen=True)
class Asked:
    """One request; header names in lower case, query parameters with their last value."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rules = Callable[[Asked], Reply]


class MetadataServer:
    """`with MetadataServer(Aws(b"#cloud-config\\n")) as server:` serves until the end of the block.

    `faults` are statuses that the next requests get in place of an answer; `seen` holds (method, path, status). `pause`
    is how many seconds its end may take.
    """

    def __init__(self, rules: Rules, host: str = "127.0.0.1", *, port: int = 0, pause: float = 0.01) -> None:
        self.faults: deque[int] = deque()
        self.seen: list[tuple[str, str, int]] = []
        self._rules = rules
        self._server = _Server((host, port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(pause,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def service(self, name: str) -> Service:
        """A client of the production code for this server."""
        return Service(name, "127.0.0.1", port=self.port)

    def reply(self, asked: Asked) -> Reply:
        if self.faults:
            reply = Reply(self.faults.popleft())
        elif "x-forwarded-for" in asked.headers:  # every cloud refuses what came through a proxy
            reply = Reply(403)
        else:
            reply = self._rules(asked)
        self.seen.append((asked.method, asked.path, reply.status))
        return reply

    def serve(self) -> None:
        """Serve until the process ends."""
        self._server.serve_forever()

    def __enter__(self) -> "MetadataServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the look-up of the address's name, which takes long where no name server answers."""
        TCPServer.server_bind(self)


def _handler(server: MetadataServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            reply = server.reply(Asked(self.command, url.path, query, headers, body))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@dataclass
class Tokens:
    """Session tokens with a life time, as three of the clouds give them out."""

    now: Callable[[], float] = time.monotonic
    _ends: dict[str, float] = field(default_factory=dict)

    def fresh(self, seconds: int) -> str:
        token = f"token-{len(self._ends)}"
        self._ends[token] = self.now() + seconds
        return token

    def good(self, token: str) -> bool:
        return self._ends.get(token, 0.0) > self.now()


def lifetime(text: str, longest: int = 21600) -> int:
    """A life time in seconds from a header, 0 when it is none that the service takes."""
    return int(text) if text.isdigit() and 1 <= int(text) <= longest else 0
