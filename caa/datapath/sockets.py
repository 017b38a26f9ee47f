"""Sockets as the data path uses them: non-blocking, bound by rename, with a look at who connects."""

from __future__ import annotations

import posix
from _socket import (
    AF_INET6,
    AF_UNIX,
    AI_NUMERICHOST,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_V6ONLY,
    SO_ACCEPTCONN,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_PEERCRED,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    gaierror,
    getaddrinfo,
    socket,
)
from errno import EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM
from struct import unpack

from caa.datapath.loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.loop import Loop

    class Keeper(Protocol):
        def accepted(self, sock: Sock, /) -> object: ...


_PATH_LIMIT = 107  # sockaddr_un.sun_path, without its closing zero
_OUT_OF_ROOM = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
_REST_SECONDS = 0.2
# A Go shim that finds the queue full fails at once and never sends its StopVM again.
_BACKLOG = 4096
_ALLOWED = frozenset((0, posix.geteuid()))  # one for all sockets
_ACCEPTS = 64  # connections taken in one event


Sock = socket  # without the parts of `socket.socket`: 48 bytes a pod, not 80


class SecurableSock(Sock):
    """One to which `_ssl` can keep a weak reference."""

    __slots__ = ("__weakref__",)


class Listener:
    """Accepts connections and hands them to `keeper.accepted(sock)`.

    `uids` limits who may connect to a unix socket. Without descriptors left it rests a moment instead of spinning.
    """

    __slots__ = ("_frozen", "_keeper", "_loop", "_path", "_sock", "_uids", "fd")

    def __init__(self, loop: Loop, sock: Sock, *, keeper: Keeper) -> None:
        self._loop = loop
        self._sock = sock
        self._keeper = keeper
        self._path = ""
        self._uids: frozenset[int] | None = None
        self._frozen = False
        self.fd = sock.fileno()
        loop.add(self.fd, IN, owner=self)

    def close(self) -> None:
        """Stop listening and remove the socket file, if it is ours."""
        if self.fd < 0:
            return
        self._loop.close(self._sock, self.fd)
        self.fd = -1
        if self._path:
            unlink(self._path)

    def freeze(self) -> None:
        """Accept nobody; who connects waits in the kernel."""
        self._frozen = True
        self._loop.remove(self.fd)

    def thaw(self) -> None:
        """Accept again."""
        self._frozen = False
        if self.fd >= 0:
            self._loop.add(self.fd, IN, owner=self)

    def leave(self) -> None:
        """Close our copy of a socket that somebody else listens on now; its file stays."""
        self._path = ""
        self.close()

    def guard(self, path: str, uids: frozenset[int]) -> None:
        """The socket file to remove at the end, empty when the keeper does it, and the users that may connect."""
        self._path = path
        self._uids = uids

    def crashed(self) -> None:
        """A failed connection is no reason to stop listening, and the connection is closed by now."""

    def ready(self, _event: int) -> None:
        """Somebody connects."""
        for _ in range(_ACCEPTS):
            try:
                fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # what socket.accept calls
            except BlockingIOError:
                return
            except OSError as error:
                self._refused(error)
                return
            self._take(SecurableSock(fileno=fd) if self._uids is None else Sock(fileno=fd))
            if self.fd < 0:  # closed by what it accepted
                return

    def _refused(self, error: OSError) -> None:
        self._loop.count("accept failed", str(error))
        if error.errno in _OUT_OF_ROOM:
            self._loop.mute(self.fd, IN)
            self._loop.later(_REST_SECONDS, self._again)

    def _take(self, sock: Sock) -> None:
        sock.setblocking(False)
        if self._uids is not None and peer_uid(sock) not in self._uids:
            self._loop.count("refused", f"uid {peer_uid(sock)} may not connect to {self._sock.getsockname()}")
            sock.close()
            return
        try:
            self._keeper.accepted(sock)
        except Exception:
            self._loop.close(sock, sock.fileno())
            raise

    def _again(self) -> None:
        if not self._frozen:
            self.thaw()


def peer_uid(sock: Sock) -> int:
    """The user who called `connect`, as the kernel noted it (SO_PEERCRED)."""
    _, uid, _ = unpack("iii", sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
    return int(uid)


def allowed_uids() -> frozenset[int]:
    """Root and ourselves."""
    return _ALLOWED


def listen_unix(loop: Loop, path: str, *, keeper: Keeper, removes: bool = True) -> Listener:
    """Listen at `path`, mode 0600, only for root and our own user; the file appears when it can be connected to.

    Closed, the listener removes it; where that is left to the keeper, nobody holds its path.

    Raises `OSError`.
    """
    fresh = f"{path}.{posix.getpid()}"
    if len(fresh.encode()) > _PATH_LIMIT:
        fresh = f"{path[: path.rindex('/')]}/.{posix.getpid()}"
    if len(path.encode()) > _PATH_LIMIT or len(fresh.encode()) > _PATH_LIMIT:
        raise OSError(f"{path} is longer than the {_PATH_LIMIT} bytes a unix socket's path may have")
    sock = Sock(AF_UNIX, SOCK_STREAM)
    try:
        unlink(fresh)
        sock.bind(fresh)
        posix.chmod(fresh, 0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        posix.rename(fresh, path)
    except OSError:
        sock.close()
        unlink(fresh)
        raise
    return inherit_unix(loop, sock, path=path if removes else "", keeper=keeper)


def inherit_unix(loop: Loop, sock: Sock, *, path: str, keeper: Keeper) -> Listener:
    """Go on with a listening socket, as one that came from another process; `path` is the file to remove, or empty."""
    listener = Listener(loop, sock, keeper=keeper)
    listener.guard(path, allowed_uids())
    return listener


def is_listening(sock: Sock) -> bool:
    """Whether it accepts connections."""
    return bool(sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN))


def connect_unix(path: str) -> Sock:
    """A connected, non-blocking unix socket; raises `OSError` at once when nobody listens or the queue is full."""
    sock = Sock(AF_UNIX, SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def listen_tcp(loop: Loop, host: str, *, port: int, keeper: Keeper) -> Listener:
    """Listen on a numeric IPv4 or IPv6 address. Raises `OSError`."""
    family, address = resolve(host, port)
    sock = Sock(family, SOCK_STREAM)
    try:
        sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return Listener(loop, sock, keeper=keeper)


def start_connect(host: str, port: int) -> Sock:
    """Begin a TCP connection to a numeric address; it is made or has failed when the socket is writable.

    Raises `OSError` when it fails at once.
    """
    family, address = resolve(host, port)
    sock = SecurableSock(family, SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock)
        sock.connect(address)
    except BlockingIOError as error:
        if error.errno != EINPROGRESS:
            sock.close()
            raise
    except OSError:
        sock.close()
        raise
    return sock


def connect_error(sock: Sock) -> int:
    """The errno of a connection begun by `start_connect`, 0 when it is made."""
    return sock.getsockopt(SOL_SOCKET, SO_ERROR)


def resolve(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    """Family and address of a numeric host, so that no name server is ever asked. Raises `OSError`."""
    try:
        # As bytes: with a str the interpreter loads its idna codec, 21 modules and 1.4 MB, also for a number.
        numeric = host.encode("ascii")
        family, _, _, _, address = getaddrinfo(numeric, port, 0, SOCK_STREAM, 0, AI_NUMERICHOST)[0]
    except (gaierror, UnicodeError, OverflowError) as error:
        raise OSError(f"{host!r} port {port} is not an IP address and a port: {error}") from error
    return family, address


def tune(sock: Sock) -> None:
    """No waiting for more to send, before the first byte: else a request waits 40 ms for a delayed acknowledgement.

    Keep-alive as Go's default has it: a silent peer is given up after 15 s + 9 probes 15 s apart.
    """
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 15)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, 15)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, 9)


def unlink(path: str) -> None:
    """Remove a file; one that is not there is fine."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
