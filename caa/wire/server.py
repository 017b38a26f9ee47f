"""ttrpc over a unix socket, the answering side: a task a call, deadlines, bounds, who may connect."""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message

from caa.errors import CaaError, Cancelled, Code, DeadlineExceeded
from caa.wire import streams
from caa.wire.connection import ServerConnection
from caa.wire.events import ConnectionFailed, Event, RequestReceived
from caa.wire.proto.descriptors import Method, methods
from caa.wire.status import RpcError
from caa.wire.streams import ByteStream, Peer

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler knows of its call beside the request. `deadline` is a point of the running loop's clock."""

    service: str
    method: str
    deadline: float | None
    metadata: Mapping[str, str]
    peer: Peer

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        if self.deadline is None:
            return None
        return max(self.deadline - asyncio.get_running_loop().time(), 0.0)


Handler = Callable[[Any, Call], Awaitable[Any]]


class Server:
    """Serves methods of services from `caa.wire.proto`; a method without a handler answers UNIMPLEMENTED.

    A handler takes the request message and the `Call`, and returns the response message. What it raises is answered:
    a `CaaError` with its own code, an `RpcError` with its details too, anything else as INTERNAL (and logged). It is
    cancelled at the call's deadline and when its connection closes. `max_in_flight` bounds the calls at work for one
    connection; beyond it the connection is not read.
    """

    def __init__(self, services: Mapping[str, Mapping[str, Handler]], *, max_in_flight: int = 128) -> None:
        self._routes = _routes(services)
        self._max_in_flight = max_in_flight
        self._listener: streams.Listener | None = None
        self._conversations: set[_Conversation] = set()
        self._uids: frozenset[int] = frozenset()

    async def listen(self, path: str, *, uids: frozenset[int] | None = None) -> None:
        """Listen at `path`, mode 0600; only processes of `uids` (default: root and ourselves) may connect.

        Whatever is at `path` is replaced. Raises `StateError`.
        """
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._listener = await streams.listen(path, self._accept)

    async def close(self) -> None:
        """Stop listening, cancel every handler, wait for their end, close every connection. Twice is once."""
        if self._listener is not None:
            self._listener.close()
        conversations = list(self._conversations)
        for conversation in conversations:
            conversation.hang_up()
        for conversation in conversations:
            await conversation.ended()

    def _accept(self, stream: ByteStream) -> "_Conversation":
        peer = stream.peer()
        conversation = _Conversation(stream, peer, routes=self._routes, max_in_flight=self._max_in_flight)
        if peer.uid not in self._uids:
            _log.warning("connection refused", uid=peer.uid, pid=peer.pid)
            stream.abort()
        self._conversations.add(conversation)
        conversation.when_ended(self._conversations.discard)
        return conversation


@dataclass(frozen=True, slots=True)
class _Route:
    method: Method
    handler: Handler


_Routes = Mapping[str, Mapping[str, _Route]]


def _routes(services: Mapping[str, Mapping[str, Handler]]) -> _Routes:
    return {
        service: {name: _Route(methods(service)[name], handler) for name, handler in handlers.items()}
        for service, handlers in services.items()
    }


class _Conversation:
    """One connection: events become tasks, results become answers."""

    def __init__(self, stream: ByteStream, peer: Peer, *, routes: _Routes, max_in_flight: int) -> None:
        self._stream = stream
        self._peer = peer
        self._routes = routes
        self._max_in_flight = max_in_flight
        self._machine = ServerConnection()
        self._queue: deque[RequestReceived] = deque()  # read already, not begun: at most one read's worth
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._ended: Callable[[_Conversation], None] | None = None

    def when_ended(self, callback: Callable[["_Conversation"], None]) -> None:
        self._ended = callback

    def hang_up(self) -> None:
        self._end()
        self._stream.close()

    async def ended(self) -> None:
        """Wait for the handlers, then for the socket; a peer that does not take its answers is not waited for."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._stream.abort()
        await self._stream.gone.wait()

    # what the stream tells

    def bytes_received(self, data: memoryview) -> None:
        for event in self._machine.receive(data):
            self._handle(event)
        self._flush()
        if self._machine.closed:
            self.hang_up()
        self._begin_calls()

    def writable_again(self) -> None:
        self._begin_calls()

    def lost(self) -> None:
        self._end()
        if self._ended is not None:
            self._ended(self)

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._queue.append(event)
        elif isinstance(event, ConnectionFailed):
            _log.warning("connection broken by its peer", reason=event.reason, uid=self._peer.uid, pid=self._peer.pid)

    # calls

    def _begin_calls(self) -> None:
        """Begin what may begin, and read on only when everything read has begun and the peer takes its answers."""
        while self._queue and self._has_room():
            self._begin(self._queue.popleft())
        if self._queue or not self._has_room():
            self._stream.hold_reading()
        else:
            self._stream.resume_reading()

    def _has_room(self) -> bool:
        return len(self._tasks) < self._max_in_flight and not self._stream.choked

    def _begin(self, request: RequestReceived) -> None:
        deadline = self._loop.time() + request.timeout_nano / 1e9 if request.timeout_nano else None
        call = Call(
            service=request.service,
            method=request.method,
            deadline=deadline,
            metadata=request.metadata,
            peer=self._peer,
        )
        task = self._loop.create_task(self._serve(request, call), name=f"{request.service}/{request.method}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        if deadline is not None:
            timer = self._loop.call_at(deadline, self._expire, request.stream, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._machine.closed:
            self._begin_calls()

    def _expire(self, stream: int, task: asyncio.Task[None]) -> None:
        """Answer at the deadline itself, whatever the handler makes of its cancellation."""
        self._answer(stream, DeadlineExceeded(f"{task.get_name()}: the caller's deadline passed"))
        task.cancel()

    async def _serve(self, request: RequestReceived, call: Call) -> None:
        try:
            outcome: bytes | Exception = await self._outcome(request, call)
        except asyncio.CancelledError:
            # At the deadline and at the end this stream has its answer, or nobody waits for one.
            self._answer(request.stream, Cancelled(f"{call.service}/{call.method} was cancelled"))
            raise
        await self._stream.drained()
        self._answer(request.stream, outcome)

    async def _outcome(self, request: RequestReceived, call: Call) -> bytes | Exception:
        try:
            route = self._route(request)
            return _encoded(await route.handler(_decoded(route, request), call), route)
        except Exception as error:
            if not isinstance(error, CaaError):
                _log.exception("handler failed", service=call.service, method=call.method)
            return error

    def _route(self, request: RequestReceived) -> _Route:
        service = self._routes.get(request.service)
        if service is None:
            raise RpcError(Code.UNIMPLEMENTED, f"service {request.service} is not served here")
        if request.method not in service:
            raise RpcError(Code.UNIMPLEMENTED, f"method {request.method} of {request.service} is not served here")
        return service[request.method]

    def _answer(self, stream: int, outcome: bytes | Exception) -> None:
        if stream not in self._machine.waiting:
            return
        if isinstance(outcome, bytes):
            self._machine.respond(stream, outcome)
        else:
            self._machine.fail(stream, outcome)
        self._flush()

    def _flush(self) -> None:
        self._stream.write(self._machine.take_outgoing())

    def _end(self) -> None:
        self._machine.close()
        self._queue.clear()
        for task in self._tasks:
            task.cancel()


def _decoded(route: _Route, request: RequestReceived) -> Message:
    try:
        return route.method.request.FromString(request.payload)
    except DecodeError as error:
        name = f"{request.service}/{request.method}"
        raise RpcError(Code.INVALID_ARGUMENT, f"the request of {name} cannot be read: {error}") from None


def _encoded(response: object, route: _Route) -> bytes:
    wanted = route.method.response
    if not isinstance(response, wanted):
        raise TypeError(f"a handler must return {wanted.DESCRIPTOR.full_name}, not {type(response).__name__}")
    return response.SerializeToString()
