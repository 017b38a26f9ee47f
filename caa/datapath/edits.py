"""Protobuf without a schema: read a field, change a field, keep every other byte and its order. Pure.

Encoding as in the protobuf documentation, "Encoding": a tag is (number << 3 | wire type); wire type 0 is a varint, 1 is
eight bytes, 2 is a length and as many bytes, 5 is four bytes. Groups (3, 4) are refused: none of our messages has one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARINT = 0
BYTES = 2


class EditError(Exception):
    """The bytes are not a protobuf message, or a field has an unexpected wire type."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the place after it; at most ten bytes and 64 bits. Raises `EditError`."""
    value = shift = 0
    for place in range(at, min(at + 10, len(data))):
        byte = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise EditError("a varint of more than 64 bits")
            return value, place + 1
        shift += 7
    raise EditError("a varint that does not end")


def varint(value: int) -> bytes:
    """The shortest encoding of a number from 0 to 2^64-1."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of wire type 2: bytes, string or message."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def varint_field(number: int, value: int) -> bytes:
    """A field of wire type 0; a negative number travels as its 64-bit two's complement."""
    return varint(number << 3 | VARINT) + varint(value & (1 << 64) - 1)


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes, int, int]]:
    """Walk a message: (number, wire type, value, start, end) of each field, in order. Raises `EditError`.

    The value is a number for wire type 0 and bytes for all others; `data[start:end]` is the whole field with its tag.
    """
    at, size = 0, len(data)
    while at < size:
        start = at
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise EditError(f"field number {number}")
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value, start, at
            continue
        length, at = _length(data, at, kind=kind)
        if length > size - at:
            raise EditError(f"field {number} reaches beyond the end of its message")
        at += length
        yield number, kind, data[at - length : at], start, at


def _length(data: bytes, at: int, *, kind: int) -> tuple[int, int]:
    if kind == BYTES:
        return read_varint(data, at)
    if kind == 1:
        return 8, at
    if kind == 5:
        return 4, at
    raise EditError(f"wire type {kind}")


def last_bytes(data: bytes, number: int) -> bytes:
    """The value of a string or bytes field; the last one counts, as in every protobuf runtime. Empty when absent."""
    found = b""
    for value in all_bytes(data, number):
        found = value
    return found


def all_bytes(data: bytes, number: int) -> list[bytes]:
    """The values of a repeated field of wire type 2, in order."""
    found = []
    for field, kind, value, _, _ in fields(data):
        if field == number:
            if kind != BYTES or isinstance(value, int):
                raise EditError(f"field {number} has wire type {kind}, 2 was expected")
            found.append(value)
    return found


def last_varint(data: bytes, number: int) -> int:
    """The value of a number field, unsigned; 0 when absent."""
    found = 0
    for field, kind, value, _, _ in fields(data):
        if field == number:
            if kind != VARINT or not isinstance(value, int):
                raise EditError(f"field {number} has wire type {kind}, 0 was expected")
            found = value
    return found


def drop(data: bytes, number: int) -> bytes:
    """The message without a field, whatever its wire type; all other bytes as they were."""
    kept = [data[start:end] for field, _, _, start, end in fields(data) if field != number]
    return b"".join(kept)


def replace(data: bytes, number: int, *, field: bytes) -> bytes:
    """Put the encoded `field` where the first field `number` was, or at the end, and drop the other ones."""
    out = []
    done = False
    for found, _, _, start, end in fields(data):
        if found != number:
            out.append(data[start:end])
        elif not done:
            out.append(field)
            done = True
    if not done:
        out.append(field)
    return b"".join(out)


def change_message(data: bytes, number: int, *, change: Callable[[bytes], bytes]) -> bytes:
    """Edit a singular sub-message in its place; `change` gets b"" when it is absent, and it is then added at the end.

    A singular message that comes several times is one message: protobuf merges them, which is the same as joining
    their bytes, so `change` sees them joined.
    """
    return replace(data, number, field=bytes_field(number, change(b"".join(all_bytes(data, number)))))


def change_each(data: bytes, number: int, *, change: Callable[[bytes], bytes | None]) -> bytes:
    """Edit every element of a repeated sub-message; None drops the element."""
    out = []
    for found, kind, value, start, end in fields(data):
        if found != number:
            out.append(data[start:end])
            continue
        if kind != BYTES or isinstance(value, int):
            raise EditError(f"field {number} has wire type {kind}, 2 was expected")
        new = change(value)
        if new is not None:
            out.append(data[start:end] if new == value else bytes_field(number, new))
    return b"".join(out)
