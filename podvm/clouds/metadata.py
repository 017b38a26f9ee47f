"""The HTTP client for metadata services: one request, a whole answer within its time, and what a status means.

No proxy, no redirect, no name lookup: the service is an address on the link. The body is bounded, and a server that
sends a byte now and then is cut off when the time is over.
"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from caa.errors import InvalidInput, Unavailable

LINK_LOCAL = "169.254.169.254"
LIMIT = 1 << 20  # bytes; the largest user data of a cloud is GCP's 256 KiB
_TRY_SECONDS = 5.0  # for one request; a service that is there answers within milliseconds
# What passes by itself: throttled, starting, being migrated (Azure says 410), a broken back end.
_LATER = frozenset({408, 410, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Service:
    """A metadata service. `name` is the cloud's, for messages."""

    def __init__(self, name: str, host: str = LINK_LOCAL, *, port: int = 80) -> None:
        self._name = name
        self._host = host
        self._port = port

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None, seconds: float
    ) -> Answer:
        """Send one request. Raises `Unavailable` when no whole answer comes in time; `body` and answer stay secret."""
        limit = min(seconds, _TRY_SECONDS)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=limit)
        end = time.monotonic() + limit
        try:
            connection.connect()
            with _cut_off(connection.sock, end - time.monotonic()):
                connection.request(method, path, body=body, headers=dict(headers))
                return _whole(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{self._name}: {method} {path} got no answer: {_reason(error)}") from None
        finally:
            connection.close()

    def want(self, answer: Answer, what: str, *, hint: str = "") -> bytes:
        """The body of a 200. Raises `Unavailable` for a status that passes by itself, else `InvalidInput`."""
        if answer.status == 200:
            if len(answer.body) > LIMIT:
                raise InvalidInput(f"{self._name}: {what} is larger than {LIMIT} bytes")
            return answer.body
        text = f"{self._name}: {what}: the metadata service answered {answer.status}"
        if answer.status in _LATER:
            raise Unavailable(text)
        raise InvalidInput(f"{text}{'; ' if hint else ''}{hint}")


def _whole(response: http.client.HTTPResponse) -> Answer:
    """The answer, if its end is known to be its end: half a document may well be a document."""
    length = response.length
    if length is None and not response.chunked:
        raise OSError("it does not say how long it is")
    body = response.read(LIMIT + 1)
    if length is not None and len(body) < min(length, LIMIT + 1):
        raise OSError("it ended in the middle")
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


@contextmanager
def _cut_off(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection down when the time is over, whatever is waited for then; raises `TimeoutError`.

    What was read until then looks whole to `http.client` when only headers were cut.
    """
    over = threading.Event()

    def cut() -> None:
        over.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0.0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            raise TimeoutError


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return error.strerror or str(error) or "cut off"
    return "it is not HTTP, or was cut off"
