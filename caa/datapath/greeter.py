"""A link until its greeting is complete: exactly the bytes of one greeting are read, and never one more."""

from __future__ import annotations

from caa.datapath.greeting import GREETING, PROTOCOL
from caa.datapath.loop import IN
from caa.datapath.tls import WANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.loop import Loop, Timer
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

    class Greeted(Protocol):
        def greeted(self, sock: Sock, tls: TlsObject, *, data: bytes) -> object: ...
        def not_greeted(self, sock: Sock, error: Exception, /) -> object: ...


# A relay that takes over makes links to all its pod VMs first and greets when each pod's turn has come.
GREETING_SECONDS = 30.0
ANSWER_SECONDS = 5.0


def has_session(tls: TlsObject) -> bool:
    """Whether both ends have agreed on a session."""
    return tls.selected_alpn_protocol() == PROTOCOL


class Greeter:
    """Ends in `owner.greeted(sock, tls, data=...)` or `owner.not_greeted(sock, error)`, once.

    `abandon` ends it without a word.
    """

    __slots__ = ("_fd", "_loop", "_owner", "_part", "_seconds", "_sock", "_timer", "_tls")

    def __init__(
        self, loop: Loop, sock: Sock, *, tls: TlsObject, owner: Greeted, seconds: float = GREETING_SECONDS
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._tls = tls
        self._owner = owner
        self._part = b""
        self._fd = sock.fileno()
        self._seconds = seconds
        self._timer: Timer = loop.later(seconds, self._silent)
        loop.add(self._fd, IN, owner=self)

    def abandon(self) -> None:
        """Stop watching; the socket stays the caller's."""
        self._timer.cancel()
        self._loop.remove(self._fd)

    def ready(self, _event: int) -> None:
        """The peer speaks."""
        try:
            got = self._tls.read(GREETING - len(self._part), self._loop.buffer)
        except WANT:
            return
        except OSError as error:
            self._fail(error)
            return
        if not got:
            self._fail(ConnectionError("closed before the greeting"))
            return
        self._part += self._loop.buffer[:got]
        if len(self._part) == GREETING:
            self.abandon()
            self._owner.greeted(self._sock, self._tls, data=self._part)

    def _silent(self) -> None:
        self._fail(TimeoutError(f"no greeting within {self._seconds:g} s"))

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._fail(ConnectionError("the greeting's handler failed"))

    def _fail(self, error: Exception) -> None:
        self.abandon()
        self._owner.not_greeted(self._sock, error)


def owner_of(certificate: bytes) -> bytes:
    """Issuer and subject of a DER certificate, as they stand there: the same after a renewal (RFC 5280, 4.1).

    Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, validity, subject, ...
    """
    at = _inside(certificate, _inside(certificate, 0))
    if certificate[at] == 0xA0:
        at = _after(certificate, at)
    issuer = _after(certificate, _after(certificate, at))
    validity = _after(certificate, issuer)
    subject = _after(certificate, validity)
    return certificate[issuer:validity] + certificate[subject : _after(certificate, subject)]


def _inside(data: bytes, at: int) -> int:
    """Where the content of the element at `at` begins."""
    length = data[at + 1]
    return at + 2 + (length & 127 if length > 127 else 0)


def _after(data: bytes, at: int) -> int:
    """Where the element at `at` ends."""
    begin = _inside(data, at)
    return begin + (int.from_bytes(data[at + 2 : begin], "big") if begin > at + 2 else data[at + 1])
