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
        self._uids: frozenset[int] = frozenset()  # nobody before `listen` and after `close`

    async def listen(self, path: str, *, uids: frozenset[int] | None = None) -> None:
        """Listen at `path`, mode 0600; only processes of `uids` (default: root and ourselves) may connect.

        Whatever is at `path` is replaced. Raises `StateError`.
        """
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._listener = await streams.listen(path, self._accept)

    async def close(self) -> None:
        """Stop listening, cancel every handler, wait for their end, close every connection. Twice is once."""
        self._uids = frozenset()
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
        self._queue: deque[_Work] = deque()  # read already, not begun: at most one read's worth
        self._running: set[_Work] = set()
        self._loop = asyncio.get_running_loop()
        self._ended: Callable[[_Conversation], None] | None = None

    def when_ended(self, callback: Callable[["_Conversation"], None]) -> None:
        self._ended = callback

    def hang_up(self) -> None:
        self._end()
        self._stream.close()

    async def ended(self) -> None:
        """Wait for the handlers, then for the socket; a peer that does not take its answers is not waited for."""
        tasks = [work.task for work in self._running if work.task is not None]
        if tasks:
            await asyncio.wait(tasks)
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
            self._admit(event)
        elif isinstance(event, ConnectionFailed):
            _log.warning("connection broken by its peer", reason=event.reason, uid=self._peer.uid, pid=self._peer.pid)

    # calls

    def _admit(self, request: RequestReceived) -> None:
        """Line a call up. Its time runs from now, whenever it begins."""
        deadline = self._loop.time() + request.timeout_nano / 1e9 if request.timeout_nano else None
        call = Call(
            service=request.service,
            method=request.method,
            deadline=deadline,
            metadata=request.metadata,
            peer=self._peer,
        )
        work = _Work(request, call)
        if deadline is not None:
            work.timer = self._loop.call_at(deadline, self._expire, work)
        if request.timeout_nano < 0:
            self._expire(work)
        self._queue.append(work)

    def _begin_calls(self) -> None:
        """Begin what may begin, and read on only when everything read has begun and the peer takes its answers."""
        while self._queue and self._has_room():
            work = self._queue.popleft()
            if not work.answered:
                self._begin(work)
        if self._queue or not self._has_room():
            self._stream.hold_reading()
        else:
            self._stream.resume_reading()

    def _has_room(self) -> bool:
        return len(self._running) < self._max_in_flight and not self._stream.choked

    def _begin(self, work: "_Work") -> None:
        work.task = self._loop.create_task(self._serve(work), name=work.name)
        self._running.add(work)
        work.task.add_done_callback(lambda _: self._finished(work))

    def _finished(self, work: "_Work") -> None:
        self._running.discard(work)
        if not self._machine.closed:
            self._begin_calls()

    def _expire(self, work: "_Work") -> None:
        """Answer at the deadline itself, whatever the handler makes of its cancellation."""
        self._answer(work, DeadlineExceeded(f"{work.name}: the caller's deadline passed"))
        work.stop()

    async def _serve(self, work: "_Work") -> None:
        try:
            outcome = await self._outcome(work.request, work.call)
        except asyncio.CancelledError:
            # At the deadline and at the end this call has its answer, or nobody waits for one.
            self._answer(work, Cancelled(f"{work.name} was cancelled"))
            raise
        await self._stream.drained()
        self._answer(work, outcome)

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

    def _answer(self, work: "_Work", outcome: bytes | Exception) -> None:
        if work.answered or self._machine.closed:
            return
        work.settle()
        if isinstance(outcome, bytes):
            self._machine.respond(work.request.stream, outcome)
        else:
            self._machine.fail(work.request.stream, outcome)
        self._flush()

    def _flush(self) -> None:
        self._stream.write(self._machine.take_outgoing())

    def _end(self) -> None:
        self._machine.close()
        for work in (*self._queue, *self._running):
            work.settle()
            work.stop()
        self._queue.clear()


@dataclass(slots=True, eq=False)
class _Work:
    """One call on its way. The stream's id may come again once it is answered, so the answer is noted here."""

    request: RequestReceived
    call: Call
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    answered: bool = False

    @property
    def name(self) -> str:
        return f"{self.call.service}/{self.call.method}"

    def settle(self) -> None:
        """Note that nobody waits for an answer any more."""
        self.answered = True
        if self.timer is not None:
            self.timer.cancel()

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()


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
