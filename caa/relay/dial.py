"""Dialling a pod VM: its addresses in turn, again and again, until TLS is up or the deadline passes."""

from __future__ import annotations

from posix import strerror

from caa.datapath.frames import DEADLINE_EXCEEDED, UNAUTHENTICATED, UNAVAILABLE, Malformed, Refused
from caa.datapath.greeter import ANSWER_SECONDS, Greeter, has_session
from caa.datapath.greeting import Forgotten, Gone, Late
from caa.datapath.loop import IN, OUT
from caa.datapath.sockets import connect_error, start_connect
from caa.datapath.tls import WANT, Handshake, TlsFiles, is_final, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from caa.datapath.loop import Loop, Timer
    from caa.datapath.session import Session
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

    class Caller(Protocol):
        def dialled(self, sock: Sock, tls: TlsObject | None) -> object: ...
        def not_dialled(self, refused: Refused) -> object: ...
        def forgotten(self) -> Session: ...


# A VM that boots drops the first packets; a new attempt finds it sooner than the kernel's own repeats at 1, 3, 7 s.
# Every fourth one waits for longer, so that a path with a round trip of a second works too.
CONNECT_SECONDS, _SOON_SECONDS, _SOON = 2.0, 0.4, 3
# A forwarder that has been spoken to answers soon, so silence in a later handshake is another cut: a call waits for us.
AGAIN_SECONDS = 3.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
_BOOT_PAUSE = 0.1  # a VM that refuses is up, and its forwarder will be in a moment: a pod waits for it


class Target:
    """Where a pod VM's forwarder is and who it has to be; `volumes` as `caa.relay.volumes` takes them."""

    __slots__ = ("addresses", "disable_tls", "files", "port", "server_name", "skip_verify", "volumes")

    def __init__(self, addresses: tuple[str, ...], port: int, *, server_name: str, files: TlsFiles) -> None:
        self.addresses = addresses
        self.port = port
        self.server_name = server_name
        self.files = files
        self.skip_verify = False
        self.disable_tls = False
        self.volumes: tuple[tuple[str, str], ...] = ()

    def same_peer(self, other: Target) -> bool:
        """Whether both name the same forwarder; certificates of ours may have been renewed in between."""
        mine = (self.addresses, self.port, self.server_name, self.disable_tls)
        return mine == (other.addresses, other.port, other.server_name, other.disable_tls)


class Dialler:
    """One dial. Ends in `caller.dialled` or `caller.not_dialled`, once; `close` ends it without a word.

    A forwarder that was restarted has forgotten the session: `caller.forgotten` gives the one to begin in its place.
    """

    __slots__ = (
        "_address",
        "_again",
        "_began",
        "_caller",
        "_context",
        "_deadline",
        "_greeter",
        "_handshake",
        "_holds",
        "_loop",
        "_pause",
        "_reason",
        "_session",
        "_sock",
        "_target",
        "_timer",
        "_tls",
        "_tries",
        "_try",
    )

    def __init__(self, loop: Loop, target: Target, *, context: Any, seconds: float, caller: Caller) -> None:
        self._loop = loop
        self._target = target
        self._context = context
        self._caller = caller
        self._address = 0
        self._pause = FIRST_PAUSE
        self._reason = "no attempt has ended yet"
        self._sock: Sock | None = None
        self._tls: TlsObject | None = None
        self._handshake: Handshake | None = None
        self._greeter: Greeter | None = None
        self._session: Session | None = None
        self._again = self._holds = False
        self._tries = 0
        self._began = self._try = loop.now()
        self._deadline = loop.later(seconds, self._too_late)
        self._timer: Timer = loop.later(0, self._connect)

    def offer(self, session: Session) -> None:
        """Begin this session with a forwarder that can; with another one the link is plain."""
        self._session = session

    def hold(self) -> None:
        """Stop when TLS is up, and wait for `use`."""
        self._holds = True

    def use(self, session: Session | None, *, caller: Caller, seconds: float) -> None:
        """Go on, with this session and for somebody else; a link that waits is used at once."""
        self._holds = False
        self._session = session
        self._again = session is not None
        self._caller = caller
        self._deadline.cancel()
        self._deadline = self._loop.later(seconds, self._too_late)
        if self._sock is not None and self._tls is not None:
            if session is None:
                self._done(self._sock, self._tls)
            else:
                self.secured(self._sock, self._tls)

    def resume(self, session: Session, *, pause: float) -> None:
        """Go on with a session that has begun; the first attempt comes after a pause."""
        self._session = session
        self._again = True
        self._timer.cancel()
        self._timer = self._loop.later(pause, self._connect)

    def close(self) -> None:
        """Stop dialling; again is fine."""
        self._deadline.cancel()
        self._drop()

    def _drop(self) -> None:
        self._timer.cancel()
        if self._handshake is not None:
            self._handshake.abandon()
            self._handshake = None
        if self._greeter is not None:
            self._greeter.abandon()
            self._greeter = None
        if self._sock is not None:
            self._loop.close(self._sock, self._sock.fileno())
            self._sock = self._tls = None

    def _host(self) -> str:
        return self._target.addresses[self._address]

    def _who(self) -> str:
        return f"pod VM {self._target.server_name or '(no name given)'} at {self._host()} port {self._target.port}"

    def _too_late(self) -> None:
        spent = self._loop.now() - self._began
        who = self._who()
        self.close()
        text = f"{who} was not reached within {spent:.1f} s; the last attempt: {self._reason}"
        self._caller.not_dialled(Refused(DEADLINE_EXCEEDED, text))

    def _failed(self, error: BaseException) -> None:
        """Note why, and try the next address; the pause grows when all have been tried."""
        self._reason = f"{self._host()}: {reason(error)}"
        if is_final(error):
            self._refuse(UNAUTHENTICATED, reason(error))
            return
        self._drop()
        self._address = (self._address + 1) % len(self._target.addresses)
        pause = 0.0
        if self._address == 0:
            pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE if self._again else _BOOT_PAUSE)
        self._timer = self._loop.later(pause, self._connect)

    def _refuse(self, code: int, why: str) -> None:
        """No further attempt can help."""
        who = self._who()
        self.close()
        self._caller.not_dialled(Refused(code, f"{who}: {why}"))

    def _connect(self) -> None:
        self._reason = f"{self._host()}: no answer yet" if self._pause == FIRST_PAUSE else self._reason
        self._try = self._loop.now()
        try:
            self._sock = start_connect(self._host(), self._target.port)
        except OSError as error:
            self._failed(error)
            return
        self._tries += 1
        seconds = CONNECT_SECONDS if self._again or self._tries % (_SOON + 1) == 0 else _SOON_SECONDS
        self._timer = self._loop.later(seconds, lambda: self._no_connection(seconds))
        self._loop.add(self._sock.fileno(), OUT, owner=self)

    def _no_connection(self, seconds: float) -> None:
        self._failed(TimeoutError(f"no connection within {seconds:g} s"))

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._failed(ConnectionError("a fault in the relay"))

    def ready(self, _event: int) -> None:
        """The connection is made or has failed; later, the peer speaks."""
        if self._tls is None:
            self._connected()
        else:
            self._spoke(self._tls)

    def _connected(self) -> None:
        sock = self._sock
        if sock is None:
            return
        number = connect_error(sock)
        if number:
            self._failed(OSError(number, strerror(number)))
            return
        self._timer.cancel()
        if self._target.disable_tls:
            self._done(sock, None)
            return
        self._try = self._loop.now()
        name = "" if self._target.skip_verify else self._target.server_name
        self._handshake = Handshake(self._loop, sock, context=self._context, server_name=name, owner=self)
        if self._again:
            self._handshake.hurry(AGAIN_SECONDS)

    def secured(self, sock: Sock, tls: TlsObject) -> None:
        """With TLS 1.3 our side is ready before the peer has looked at our certificate: wait for a possible alert.

        It comes one round trip later; the handshake took at least that long.
        """
        self._handshake = None
        if self._holds:
            self._tls = tls
            self._deadline.cancel()
            self._caller.dialled(sock, tls)
            return
        if self._session is not None and has_session(tls):
            self._greet(sock, tls, session=self._session)
            return
        if self._again:
            self._refuse(UNAVAILABLE, "the forwarder offers no session any more")
            return
        if tls.version() != "TLSv1.3":
            self._done(sock, tls)
            return
        self._tls = tls
        wait = min(max(2 * (self._loop.now() - self._try), 0.005), 0.2)
        self._timer = self._loop.later(wait, self._settled)
        self._loop.add(sock.fileno(), IN, owner=self)

    def not_secured(self, _sock: Sock, error: Exception) -> None:
        """The handshake failed; the socket is closed with the attempt."""
        self._handshake = None
        self._failed(error)

    def _greet(self, sock: Sock, tls: TlsObject, *, session: Session) -> None:
        """The answer also tells that the peer has taken our certificate."""
        try:
            tls.write(session.hello())
        except (OSError, *WANT) as error:
            self._failed(error)
            return
        self._greeter = Greeter(self._loop, sock, tls=tls, owner=self, seconds=ANSWER_SECONDS)

    def greeted(self, sock: Sock, tls: TlsObject, *, data: bytes) -> None:
        """The forwarder has answered to our HELLO."""
        self._greeter = None
        session = self._session
        if session is None:
            return
        try:
            session.welcome(data)
        except Late as error:
            self._failed(error)
        except Forgotten as error:
            self._session = self._caller.forgotten()
            self._failed(error)
        except (Gone, Malformed) as error:
            self._refuse(UNAVAILABLE, str(error))
        else:
            self._done(sock, tls)

    def not_greeted(self, _sock: Sock, error: Exception) -> None:
        """The link ended before, or our certificate was refused."""
        self._greeter = None
        self._failed(error)

    def _spoke(self, tls: TlsObject) -> None:
        try:
            got = tls.read(1, self._loop.buffer)
        except WANT:
            return  # session tickets
        except OSError as error:
            self._failed(error)
            return
        self._failed(ConnectionError("the peer spoke before it was asked" if got else "closed after the handshake"))

    def _settled(self) -> None:
        if self._sock is not None:
            self._done(self._sock, self._tls)

    def _done(self, sock: Sock, tls: TlsObject | None) -> None:
        self._loop.remove(sock.fileno())
        self._sock = self._tls = None
        self.close()
        self._caller.dialled(sock, tls)
