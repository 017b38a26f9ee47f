"""Netlink's own framing, pure: messages, attributes, acknowledgements. No sockets, no meaning of any message.

Formats: linux/netlink.h, RFC 3549. All integers are in the machine's byte order.
"""

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from caa.errors import NetworkError

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100  # on an acknowledgement: the request is not echoed
NLM_F_ACK_TLVS = 0x200  # on an acknowledgement: attributes follow

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ACK_TEXT = 1  # NLMSGERR_ATTR_MSG


class KernelRefused(NetworkError):
    """An error acknowledgement: `errno` and the kernel's own sentence, "" when it gave none."""

    def __init__(self, number: int, *, text: str = "", what: str = "") -> None:
        said = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})" + (f": {text}" if text else "")
        super().__init__(f"the kernel refused to {what}: {said}" if what else said)
        self.errno = number
        self.text = text


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    if len(data) > 0xFFFF - _ATTRIBUTE.size:
        raise NetworkError(f"a netlink attribute of {len(data)} bytes is too long")
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(_aligned(length) - length)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes (without NLA_F_NESTED, as iproute2 writes it for link, route and tc)."""
    return attribute(kind, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """An attribute that holds one byte."""
    return attribute(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    """An attribute that holds a 32 bit number."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a string with its final zero byte."""
    return attribute(kind, value.encode() + b"\0")


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over the attributes in `data`. Raises `NetworkError` when a length runs out of it."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise NetworkError(f"a netlink attribute of {length} bytes does not fit into its message")
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by type; the last of a type wins."""
    return dict(items(data))


def number(data: bytes | None, default: int = 0) -> int:
    """A number of 1, 2, 4 or 8 bytes, `default` when the attribute is absent."""
    return default if data is None else int.from_bytes(data, "little" if _LITTLE else "big")


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def string(data: bytes | None) -> str:
    """A string up to its zero byte, "" when the attribute is absent."""
    return "" if data is None else data.split(b"\0", 1)[0].decode("utf-8", "replace")


def message(kind: int, flags: int, *, sequence: int, body: bytes) -> bytes:
    """One message ready to send to the kernel (port 0)."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[Message]:
    """Walk over the messages of one datagram. Raises `NetworkError` when a length runs out of it."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise NetworkError(f"a netlink message of {length} bytes does not fit into its datagram")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += _aligned(length)


def verdict(ack: Message) -> KernelRefused | None:
    """What an NLMSG_ERROR message says: None for success. Finds the extended acknowledgement's text."""
    (code,) = _ERROR.unpack_from(ack.body)
    if code == 0:
        return None
    return KernelRefused(-code, text=_ack_text(ack))


def _ack_text(ack: Message) -> str:
    if not ack.flags & NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.size
    if not ack.flags & NLM_F_CAPPED:
        (echoed,) = struct.unpack_from("=I", ack.body, _ERROR.size)
    found = attributes(ack.body[_ERROR.size + _aligned(echoed) :])
    return string(found.get(_ACK_TEXT))
