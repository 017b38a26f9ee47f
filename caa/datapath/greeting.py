"""Control frames of a resumable session, and the greeting that begins a link: their format. Pure.

A control frame is a ttrpc header with stream 0, type 0x7F and the kind in the flags; ACK carries 8 bytes, the greeting
and its answers 64, all others nothing.
"""

from __future__ import annotations

from struct import Struct

from caa.datapath.frames import HEADER, HEADER_SIZE, Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.frames import Buffer

PROTOCOL = "caa-session/1"
VERSION = 1
CONTROL = 0x7F
HELLO, WELCOME, GONE, LATE, ACK, ASK, END, PING, PONG = range(1, 10)

# What GONE may say in the byte that tells a new session in HELLO. Forwarders before it say 0, relays before it look at
# none: to both of them the session has ended.
BEGIN_ANEW = 1  # the forwarder was restarted, and nobody has asked its agent anything since: a new session may begin
NO_AGENT = 2
# Version, 1 for a new session, 0, attempt, session id, secret, bytes received. Greetings keep their size in every
# version, and begin with it.
_GREET = Struct(">BBHI16s32sQ")
GREETING = HEADER_SIZE + _GREET.size
_head = HEADER.unpack_from


class Gone(Exception):
    """The other side cannot go on with this session, ever; the text says why."""


class Forgotten(Gone):
    """The session is unknown after a restart of the other side, which is ready for a new one with the same agent."""


class Late(Exception):
    """A newer attempt has been seen: our number is raised now, dial again."""


class Greeting:
    """The first bytes of a link in either direction. `kind` is HELLO, or one of the answers to it."""

    __slots__ = ("attempt", "count", "identity", "kind", "new", "secret", "version")

    def __init__(self, data: Buffer) -> None:
        """Takes `GREETING` bytes. Raises `Malformed`."""
        if len(data) != GREETING:
            raise Malformed(f"a greeting of {len(data)} bytes")
        size, stream, kind, flags = _head(data)
        if size != _GREET.size or stream or kind != CONTROL:
            raise Malformed("no greeting at the start of the link")
        self.kind: int = flags
        self.version, self.new, _, self.attempt, self.identity, self.secret, self.count = _GREET.unpack_from(
            data, HEADER_SIZE
        )


def control(kind: int, payload: bytes = b"") -> bytes:
    """A control frame."""
    return HEADER.pack(len(payload), 0, CONTROL, kind) + payload


def greet(kind: int, identity: bytes, *, attempt: int, count: int = 0, word: int = 0) -> bytes:
    """An answer to a HELLO; the secret is not repeated. `word` is what GONE says besides."""
    return control(kind, _GREET.pack(VERSION, word, 0, attempt, identity, bytes(32), count))


def hello(identity: bytes, secret: bytes, *, new: bool, attempt: int, count: int) -> bytes:
    """The first bytes of a relay."""
    return control(HELLO, _GREET.pack(VERSION, new, 0, attempt, identity, secret, count))


def farewell(word: int, *, known: bool) -> Gone:
    """What GONE means for a session that the peer knew, or not yet."""
    if word == NO_AGENT:
        return Gone("the forwarder was restarted and cannot reach its agent any more: the agent's socket is gone")
    if word == BEGIN_ANEW and known:
        return Forgotten("the forwarder was restarted and does not know the session; its agent is there")
    return Gone("the forwarder cannot go on with the session")


def same(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where two secrets differ; `hmac` is not loaded here."""
    difference = len(one) ^ len(other)
    for left, right in zip(one, other, strict=False):
        difference |= left ^ right
    return not difference
