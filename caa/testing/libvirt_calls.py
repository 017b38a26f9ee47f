"""libvirt seen and disturbed: a proxy around a `virConnect` that counts every call, and lets one of them go wrong.

    calls = Calls()
    driver = providers.libvirt.provider(settings, Connection(uri, opener=calls.open))
    calls.plan(7, Fault.LOST)          # the eighth call from now is done, and answered with an error

What the objects do that the connection gives (domains, pools, volumes, streams) counts as well. `stubs` replaces calls
that a libvirt driver does not have, by their names ("virStorageVol.upload").
"""

import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import libvirt

_OURS = ("virConnect", "virDomain", "virStoragePool", "virStorageVol", "virNetwork", "virStream")
_UNCOUNTED = frozenset({"isAlive", "close", "setKeepAlive", "domainEventRegisterAny", "domainEventDeregisterAny"})


class Fault(StrEnum):
    """What becomes of one call."""

    REFUSED = "refused"  # not done, and an error told
    LOST = "lost"  # done, and an error told
    CUT = "cut"  # not done: the connection is gone
    LOST_AND_CUT = "lost and cut"  # done, and the connection is gone before the answer


class Injected(libvirt.libvirtError):  # type: ignore[misc]  # libvirt-python has no types
    """An error as libvirt raises it. `code` is its number, 1 an internal error."""

    def __init__(self, message: str, code: int = 1) -> None:
        Exception.__init__(self, message)
        self.err = (code, 0, message, 2, None, None, None, 0, 0)


def content_stubs() -> dict[str, Callable[..., Any]]:
    """What libvirt's test driver lacks: volumes that keep what is uploaded. They all have the same content."""
    kept = [b""]

    def upload(read: Callable[..., bytes], opaque: Any) -> None:
        kept[0] = read(None, 1 << 30, opaque)

    def download(write: Callable[..., object], opaque: Any) -> None:
        write(None, kept[0], opaque)

    return {
        "virStorageVol.upload": lambda *_: 0,
        "virStorageVol.download": lambda *_: 0,
        "virStream.sendAll": upload,
        "virStream.recvAll": download,
        "virStream.finish": lambda: 0,
    }


class Calls:
    """Every call in order, in `names`; opens connections that are watched.

    By the name of a call: `stubs` replace it, `told` are called once when it begins, `errors` are raised once instead.
    """

    def __init__(self, stubs: Mapping[str, Callable[..., Any]] = MappingProxyType({})) -> None:
        self.names: list[str] = []
        self.fired = 0
        self.stubs = dict(stubs)
        self.told: dict[str, Callable[[], object]] = {}
        self.errors: dict[str, Exception] = {}
        self._lock = threading.Lock()
        self._plan: dict[int, Fault | Exception] = {}
        self._watched: dict[int, Callable[[], object]] = {}
        self._open: list[Any] = []

    def open(self, uri: str) -> Any:
        """For `Connection(opener=...)`."""
        connection = libvirt.open(uri)
        self._open.append(connection)
        return Wrapped(connection, self)

    def plan(self, number: int, fault: Fault | Exception) -> None:
        """Let the call that comes after `number` others go wrong; an exception is raised in place of the call."""
        with self._lock:
            self._plan[len(self.names) + number] = fault

    def watch(self, number: int, told: Callable[[], object]) -> None:
        """Call `told` when the call that comes after `number` others begins; in the thread that makes it."""
        with self._lock:
            self._watched[len(self.names) + number] = told

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        """Make one call, or let it go wrong."""
        with self._lock:
            fault = self._plan.pop(len(self.names), None)
            self._watched.pop(len(self.names), bool)()
            self.names.append(name)
            self.told.pop(name, bool)()
            fault = self.errors.pop(name, fault)
        if fault is None:
            return call()
        self.fired += 1
        if isinstance(fault, Exception):
            raise fault
        if fault in (Fault.LOST, Fault.LOST_AND_CUT):
            call()
        if fault in (Fault.CUT, Fault.LOST_AND_CUT):
            self.cut()
        raise Injected(f"injected: {name} {fault}")

    def cut(self) -> None:
        """Every connection is gone, as far as who uses it can see."""
        cut, self._open = self._open, []
        for connection in cut:
            connection.caa_cut = True


class Wrapped:
    """One of libvirt's objects, watched."""

    def __init__(self, real: Any, calls: Calls) -> None:
        self._real = real
        self._calls = calls

    def isAlive(self) -> bool:
        """Of a connection; False once it was cut."""
        return not getattr(self._real, "caa_cut", False) and bool(self._real.isAlive())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found) or name in _UNCOUNTED:
            return found
        label = f"{type(self._real).__name__}.{name}"
        act = self._calls.stubs.get(label) or found

        def call(*arguments: Any) -> Any:
            plain = [one._real if isinstance(one, Wrapped) else one for one in arguments]
            return self._wrapped(self._calls.around(label, lambda: act(*plain)))

        return call

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._wrapped(one) for one in value]
        if type(value).__name__ in _OURS:
            return Wrapped(value, self._calls)
        return value
