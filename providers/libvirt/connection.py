"""The connection to libvirtd: opened when it is needed, kept alive, opened again after the daemon restarted.

`client.py`, `sight.py` and this file are the only ones that import `libvirt`.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import libvirt
import structlog

from caa.errors import Misconfigured, ProviderError
from providers.libvirt.faults import NO_SUPPORT, ConnectionLost, sorted_error

_log = structlog.get_logger(__name__)

_OPEN_SECONDS = 20.0
_KEEPALIVE = (5, 3)  # seconds between two questions, unanswered ones before the connection counts as lost

Opener = Callable[[str], Any]
Watcher = Callable[[str], None]


class Connection:
    """One libvirt connection for all threads. `watcher` is told the UUID of a domain whose life, or agent, changed."""

    def __init__(self, uri: str, *, opener: Opener | None = None) -> None:
        self._uri = uri
        self._open: Opener = opener or libvirt.open
        self._lock = threading.Lock()
        self._connection: Any = None
        self._opening: Future[Any] | None = None
        self.watcher: Watcher = lambda _uuid: None
        self.generation = 0  # counts the times it was opened

    @contextmanager
    def work(self) -> Iterator[Any]:
        """The living `virConnect`. What libvirt says meanwhile is one of our errors; `ConnectionLost` when it died."""
        connection = None
        try:
            connection = self._living()
            yield connection
        except libvirt.libvirtError as error:
            raise self._translated(connection, error) from error

    def close(self) -> None:
        """Let go of it; twice is once, and the next call opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        _close(connection)

    def _living(self) -> Any:
        with self._lock:
            if self._connection is None or not _alive(self._connection):
                _close(self._connection)
                self._connection = None
                self._connection = self._opened()
                self.generation += 1
            return self._connection

    def _opened(self) -> Any:
        _event_loop()
        connection = self._opened_in_time()
        with suppress(libvirt.libvirtError):  # the test driver has none
            connection.setKeepAlive(*_KEEPALIVE)
        for event in (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE):
            try:
                connection.domainEventRegisterAny(None, event, self._changed, None)
            except libvirt.libvirtError as error:  # polling alone finds the address too, only later
                _log.debug("libvirt sends no events", kind=event, error=str(error))
        return connection

    def _opened_in_time(self) -> Any:
        """A daemon that hangs lets one connect and says nothing more, and an open connection has no keep-alive yet. The
        thread that waits for it goes on, and who asks next waits for the same one."""
        if self._opening is None:
            self._opening = Future()
            threading.Thread(target=_fulfil, args=(self._opening, partial(self._open, self._uri)), daemon=True).start()
        opening = self._opening
        try:
            connection = opening.result(_OPEN_SECONDS)
        except TimeoutError:
            raise ConnectionLost(f"libvirt says nothing for {_OPEN_SECONDS:g} s (LIBVIRT_URI)") from None
        finally:
            if opening.done():
                self._opening = None
        return connection

    def _changed(self, _connection: Any, domain: Any, *_what: Any) -> None:
        """Runs in the event loop's thread."""
        with suppress(libvirt.libvirtError):
            self.watcher(domain.UUIDString())

    def _translated(self, connection: Any, error: libvirt.libvirtError) -> ProviderError:
        message = str(error)
        if connection is not None and not _alive(connection):
            return ConnectionLost(f"the connection to libvirt was lost (LIBVIRT_URI): {message}")
        found = sorted_error(error.get_error_code() or 0, error.get_error_domain() or 0, message=message)
        if connection is None and "LIBVIRT_URI" not in str(found):
            return Misconfigured(f"LIBVIRT_URI: libvirt cannot open it: {message}")
        return found


def _fulfil(promise: "Future[Any]", act: Callable[[], Any]) -> None:
    try:
        promise.set_result(act())
    except Exception as error:
        promise.set_exception(error)


def code_of(error: libvirt.libvirtError) -> int:
    """libvirt's number of an error."""
    return int(error.get_error_code() or 0)


def supported(call: Callable[[], Any], otherwise: Any) -> Any:
    """What `call` gives, or `otherwise` where the libvirt driver does not have the call."""
    try:
        return call()
    except libvirt.libvirtError as error:
        if code_of(error) != NO_SUPPORT:
            raise
        return otherwise


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _close(connection: Any) -> None:
    if connection is not None:
        with suppress(libvirt.libvirtError):
            connection.close()


@cache
def _event_loop() -> threading.Thread:
    """libvirt's own event loop, of which a process has one: it carries keep-alives and events of all connections.

    It has to be there before the first connection, and can never be taken away again, so its thread ends with the
    process.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else libvirt prints every error
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=_turn, name="libvirt-events", daemon=True)
    thread.start()
    return thread


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
