"""ttrpc over a unix socket, the calling side: many calls at once on one connection."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message

from caa.errors import Code, DeadlineExceeded, Unavailable
from caa.wire import streams
from caa.wire.connection import ClientConnection
from caa.wire.events import ConnectionFailed, ResponseReceived
from caa.wire.proto.descriptors import methods
from caa.wire.status import RpcError
from caa.wire.streams import ByteStream

_log = structlog.get_logger(__name__)


async def connect(path: str) -> "Client":
    """Connect to the server at a unix socket; raises `Unavailable` when nobody listens there."""
    client = Client()
    await streams.dial(path, client._adopt)
    return client


class Client:
    """A connection to a ttrpc server. `closed` is set when it is lost or closed; it never comes back."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._machine = ClientConnection()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._reason = "not connected"
        self._stream: ByteStream

    async def call(
        self,
        path: str,
        request: Message,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Call `path` ("grpc.Health/Check") and wait for the answer; returns the response message.

        `timeout` in seconds travels with the call. Raises `DeadlineExceeded` when it has passed here, `RpcError` with
        what the peer answered, `Unavailable` when the connection is or gets lost, `KeyError` for a method that the
        service of this name does not have. A cancelled call is forgotten; the peer is not told, ttrpc cannot.
        """
        service, _, method = path.partition("/")
        response = methods(service)[method].response
        if timeout is not None and timeout <= 0:
            raise DeadlineExceeded(f"{path}: no time is left to call")
        try:
            async with asyncio.timeout(timeout) as bound:
                await self._stream.drained()
                remaining = _remaining_nano(bound)
                payload = await self._exchange(service, method, request=request, timeout=remaining, metadata=metadata)
        except TimeoutError:
            raise DeadlineExceeded(f"{path}: no answer within {timeout} s") from None
        try:
            return response.FromString(payload)
        except DecodeError as error:
            raise RpcError(Code.INTERNAL, f"the response of {path} cannot be read: {error}") from None

    async def close(self) -> None:
        """Close; calls that wait end with `Unavailable`. Twice is once."""
        self._reason = "closed by us"
        self._stream.abort()
        await self.closed.wait()

    async def _exchange(
        self, service: str, method: str, *, request: Message, timeout: int, metadata: Mapping[str, str] | None
    ) -> bytes:
        if self.closed.is_set() or self._machine.closed:
            raise self._lost()
        stream = self._machine.request(
            service,
            method,
            payload=request.SerializeToString(),
            timeout_nano=timeout,
            metadata=metadata or {},
        )
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = answer
        self._stream.write(self._machine.take_outgoing())
        try:
            return await answer
        finally:
            del self._waiting[stream]
            self._machine.abandon(stream)
            if answer.done() and not answer.cancelled():
                answer.exception()  # a caller cancelled at the last moment leaves it unread, asyncio would complain

    # what the stream tells

    def _adopt(self, stream: ByteStream) -> "Client":
        self._stream = stream
        self._reason = "the peer closed the connection"
        return self

    def bytes_received(self, data: memoryview) -> None:
        for event in self._machine.receive(data):
            if isinstance(event, ResponseReceived):
                self._settle(event)
            elif isinstance(event, ConnectionFailed):
                _log.warning("connection broken by its peer", reason=event.reason)
                self._reason = event.reason
                self._stream.abort()

    def writable_again(self) -> None:
        """Nothing to do: callers wait for the stream themselves."""

    def lost(self) -> None:
        self._machine.close()
        self.closed.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._lost())

    def _settle(self, event: ResponseReceived) -> None:
        answer = self._waiting.get(event.stream)
        if answer is None or answer.done():
            return
        if event.error is None:
            answer.set_result(event.payload)
        else:
            answer.set_exception(event.error)

    def _lost(self) -> Unavailable:
        return Unavailable(f"ttrpc: closed ({self._reason})")


def _remaining_nano(bound: asyncio.Timeout) -> int:
    """What is left of the time, in ns; 0 without a bound. At least 1, since 0 on the wire means no bound."""
    when = bound.when()
    if when is None:
        return 0
    return max(int((when - asyncio.get_running_loop().time()) * 1e9), 1)
