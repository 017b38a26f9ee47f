"""TLS on the descriptor: contexts from files, the handshake inside the loop, what a failure means.

Uses `_ssl` where it can be had, which spares 2 MB and 15 ms against `ssl` (`docs/performance.md`).
"""

from __future__ import annotations

import posix

from caa.datapath.loop import IN, OUT

try:
    from _ssl import (
        CERT_NONE,
        CERT_REQUIRED,
        PROTOCOL_TLS_CLIENT,
        PROTOCOL_TLS_SERVER,
        SSLCertVerificationError,
        SSLError,
        SSLWantReadError,
        SSLWantWriteError,
        _SSLContext,
    )
except ImportError:  # an interpreter without the private name
    from ssl import (
        CERT_NONE,
        CERT_REQUIRED,
        PROTOCOL_TLS_CLIENT,
        PROTOCOL_TLS_SERVER,
        SSLCertVerificationError,
        SSLError,
        SSLWantReadError,
        SSLWantWriteError,
    )
    from ssl import SSLContext as _SSLContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from caa.datapath.loop import Loop, Timer
    from caa.datapath.sockets import Sock

    class TlsObject(Protocol):
        def read(self, size: int, buffer: memoryview, /) -> int: ...
        def write(self, data: bytes | bytearray | memoryview, /) -> int: ...
        def do_handshake(self) -> None: ...
        def shutdown(self) -> object: ...
        def version(self) -> str | None: ...
        def selected_alpn_protocol(self) -> str | None: ...
        def getpeercert(self, binary: bool, /) -> Any: ...

    class Secured(Protocol):
        def secured(self, sock: Sock, tls: TlsObject, /) -> object: ...
        def not_secured(self, sock: Sock, error: Exception, /) -> object: ...


# What a read or a write raises when it would have to wait.
WANT = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
HANDSHAKE_SECONDS = 10.0
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: a certificate in the CA file is trusted as it is, as Go does
_NEVER_SUBJECT = 0x20  # X509_CHECK_FLAG_NEVER_CHECK_SUBJECT: names count in subjectAltName only, as Go does
_EXPIRED_HERE = "alert certificate expired"
_REMEDIES = (
    (_EXPIRED_HERE, " (by the peer's clock our client certificate has expired: see `caa certs show`, and both clocks)"),
    ("certificate has expired", " (only a new pod VM gets another one, unless this clock is wrong)"),
    ("certificate is not yet valid", " (compare the clocks of both ends)"),
)
_VERSIONS = (("", 0x0303), ("VersionTLS12", 0x0303), ("VersionTLS13", 0x0304), ("1.2", 0x0303), ("1.3", 0x0304))
_KEY_EXCHANGES = ("ECDHE_ECDSA", "ECDHE_RSA", "DHE_RSA", "RSA")
_SEALS = (
    ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
    ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
    ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
    ("AES_128_CBC_SHA256", "AES128-SHA256"),
    ("AES_128_CBC_SHA", "AES128-SHA"),
    ("AES_256_CBC_SHA", "AES256-SHA"),
)


class TlsFiles:
    """Where the PEM files are and which profile holds. Empty names mean: not given."""

    __slots__ = ("ca", "cert", "ciphers", "key", "min_version")

    def __init__(self, *, ca: str = "", cert: str = "", key: str = "", min_version: str = "") -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.min_version = min_version
        self.ciphers: Sequence[str] = ()

    def key_of(self) -> tuple[object, ...]:
        """What tells one set from another: names, profile, and the files' times, because certificates are renewed."""
        return (self.ca, self.cert, self.key, self.min_version, tuple(self.ciphers), *map(_stamp, self._named()))

    def _named(self) -> tuple[str, ...]:
        return tuple(name for name in (self.ca, self.cert, self.key) if name)


class TlsError(Exception):
    """The files or the profile cannot be used."""


def server_context(files: TlsFiles, *, protocol: str = "") -> Any:
    """For the forwarder: clients must show a certificate of the CA. Raises `TlsError`.

    A client that offers `protocol` by ALPN gets it; one that offers nothing known is served without.
    """
    if not (files.ca and files.cert and files.key):
        raise TlsError("a TLS server needs a CA file, a certificate and its key, or -disable-tls")
    context = _SSLContext(PROTOCOL_TLS_SERVER)
    context.verify_mode = CERT_REQUIRED
    if hasattr(context, "num_tickets"):
        context.num_tickets = 0  # no session is ever resumed, and a ticket costs the client memory
    _load(context, files)
    _speak(context, protocol)
    return context


def client_context(files: TlsFiles, *, skip_verify: bool = False, protocol: str = "") -> Any:
    """For the relay: the server's name and chain are checked unless `skip_verify`. Raises `TlsError`.

    `protocol` is offered by ALPN.
    """
    context = _SSLContext(PROTOCOL_TLS_CLIENT)
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = CERT_NONE
    elif not files.ca:
        raise TlsError("no CA file to check the pod VM's certificate with")
    if hasattr(context, "_host_flags"):
        context._host_flags |= _NEVER_SUBJECT
    _load(context, files)
    _speak(context, protocol)
    return context


def _speak(context: Any, protocol: str) -> None:
    if protocol:
        name = protocol.encode()
        context._set_alpn_protocols(bytes((len(name),)) + name)


def _load(context: Any, files: TlsFiles) -> None:
    context.minimum_version = minimum_version(files.min_version)
    context.verify_flags |= _PARTIAL_CHAIN
    names = cipher_names(files.ciphers)
    name = ""
    try:
        if names:
            context.set_ciphers(":".join(names))
        if files.ca:
            name = files.ca
            context.load_verify_locations(files.ca, None, None)
        if files.cert:
            name = f"{files.cert} with the key {files.key}"
            context.load_cert_chain(files.cert, files.key, None)
    except OSError as error:  # SSLError is one
        raise TlsError(f"{name or 'cipher suites ' + ':'.join(names)}: {reason(error)}") from error


def minimum_version(name: str) -> int:
    """The protocol number of a name, as in the settings; never below TLS 1.2. Raises `TlsError`."""
    for known, number in _VERSIONS:
        if name == known:
            return number
    raise TlsError(f"TLS version {name!r} is not one of VersionTLS12, VersionTLS13")


def cipher_names(names: Sequence[str]) -> list[str]:
    """OpenSSL's names of cipher suites given by IANA's or OpenSSL's names; TLS 1.3's are left out.

    Those cannot be chosen (nor can they in Go). Raises `TlsError` for an IANA name that is not known.
    """
    return [_openssl_name(name) for name in names if name and not name.startswith(("TLS_AES_", "TLS_CHACHA20_"))]


def _openssl_name(name: str) -> str:
    if not name.startswith("TLS_"):
        return name
    exchange, _, seal = name[len("TLS_") :].partition("_WITH_")
    for iana, openssl in _SEALS:
        if seal == iana and exchange in _KEY_EXCHANGES:
            return openssl if exchange == "RSA" else f"{exchange.replace('_', '-')}-{openssl}"
    raise TlsError(f"cipher suite {name} is not known")


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = posix.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


def reason(error: BaseException) -> str:
    """Why TLS or a socket failed, without OpenSSL's source lines; with what to do about a certificate's dates."""
    told = getattr(error, "verify_message", None)
    if told:
        return f"certificate verify failed: {told}{_remedy(told)}"
    told = getattr(error, "reason", None)
    if told:
        text = str(told).replace("_", " ").lower()
        return text + _remedy(text)
    if isinstance(error, SSLError):
        return str(error).partition(" (_ssl.c")[0]
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _remedy(text: str) -> str:
    return next((remedy for words, remedy in _REMEDIES if words in text), "")


def is_curable(text: str) -> bool:
    """Whether a `reason` says that the peer refused our certificate as expired: a newer one may be on its way."""
    return _EXPIRED_HERE in text


def is_final(error: BaseException) -> bool:
    """Whether dialling again is of no use: a certificate that is wrong, or a peer that refuses ours by an alert.

    An end of file, a reset or silence may be a forwarder that is just starting; a record that arrives garbled says
    something of the way, not of the peer.
    """
    if isinstance(error, SSLCertVerificationError):
        return True
    why = str(getattr(error, "reason", None) or "")
    return isinstance(error, SSLError) and bool(why) and "EOF" not in why and "BAD_RECORD_MAC" not in why


class Handshake:
    """A handshake in the loop. Ends in `owner.secured(sock, tls)` or `owner.not_secured(sock, error)`, once.

    On failure the owner closes the socket. `abandon` ends it without a word.
    """

    __slots__ = ("_fd", "_loop", "_owner", "_sock", "_timer", "_tls")

    def __init__(self, loop: Loop, sock: Sock, *, context: Any, server_name: str | None, owner: Secured) -> None:
        """With a `server_name` (empty: none to check) we are the client, with None the server."""
        server = server_name is None
        self._tls: TlsObject = context._wrap_socket(sock, server, server_name or None, owner=None, session=None)
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self._fd = sock.fileno()
        self._timer: Timer = loop.later(HANDSHAKE_SECONDS, self._silent)
        loop.add(self._fd, IN if server else OUT, owner=self)

    def hurry(self, seconds: float) -> None:
        """Give it so many seconds from now, in place of the usual time."""
        self._timer.cancel()
        self._timer = self._loop.later(seconds, lambda: self._silent(seconds))

    def abandon(self) -> None:
        """Stop watching; the socket stays the caller's."""
        self._timer.cancel()
        self._loop.remove(self._fd)

    def ready(self, _event: int) -> None:
        """One step of the handshake."""
        try:
            self._tls.do_handshake()
        except SSLWantReadError:
            self._loop.set(self._fd, IN)
        except SSLWantWriteError:
            self._loop.set(self._fd, OUT)
        except (OSError, ValueError) as error:
            self._fail(error)
        else:
            self.abandon()
            self._hand_over()

    def _hand_over(self) -> None:
        try:
            self._owner.secured(self._sock, self._tls)
        except Exception:
            self._loop.close(self._sock, self._fd)
            raise

    def _silent(self, seconds: float = HANDSHAKE_SECONDS) -> None:
        self._fail(TimeoutError(f"no TLS handshake within {seconds:g} s"))

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._fail(ConnectionError("the handshake's handler failed"))

    def _fail(self, error: Exception) -> None:
        self.abandon()
        self._owner.not_secured(self._sock, error)
