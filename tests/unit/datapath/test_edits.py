"""Field edits against the protobuf runtime, and against bytes that are no message."""

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath import edits

numbers = st.integers(1, 40)
scalars = st.one_of(
    st.tuples(numbers, st.integers(0, 2**64 - 1)).map(lambda it: edits.varint_field(*it)),
    st.tuples(numbers, st.binary(max_size=200)).map(lambda it: edits.bytes_field(*it)),
    st.tuples(numbers, st.binary(min_size=8, max_size=8)).map(lambda it: edits.varint(it[0] << 3 | 1) + it[1]),
    st.tuples(numbers, st.binary(min_size=4, max_size=4)).map(lambda it: edits.varint(it[0] << 3 | 5) + it[1]),
)
messages = st.lists(scalars, max_size=20)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varint_round_trip(value: int, after: bytes) -> None:
    encoded = edits.varint(value)
    assert edits.read_varint(encoded + after, 0) == (value, len(encoded))


@given(messages)
def test_fields_agree_with_the_runtime(parts: list[bytes]) -> None:
    data = b"".join(parts)
    theirs = UnknownFieldSet(descriptor_pb2.UninterpretedOption.NamePart.FromString(b""))
    assert len(theirs) == 0
    message = descriptor_pb2.GeneratedCodeInfo.FromString(edits.bytes_field(99, data))
    assert next(iter(UnknownFieldSet(message))).data == data
    ours = list(edits.fields(data))
    assert [data[start:end] for _, _, _, start, end in ours] == parts
    assert b"".join(data[start:end] for _, _, _, start, end in ours) == data


@given(messages, numbers)
def test_drop_keeps_all_else(parts: list[bytes], number: int) -> None:
    expected = b"".join(part for part in parts if next(edits.fields(part))[0] != number)
    assert edits.drop(b"".join(parts), number) == expected


@given(messages, numbers, st.binary(max_size=50))
def test_replace_keeps_place_and_all_else(parts: list[bytes], number: int, value: bytes) -> None:
    field = edits.bytes_field(number, value)
    found = edits.replace(b"".join(parts), number, field=field)
    mine = [part for part in parts if next(edits.fields(part))[0] == number]
    if not mine:
        assert found == b"".join(parts) + field
        return
    place = next(i for i, part in enumerate(parts) if part is mine[0] or next(edits.fields(part))[0] == number)
    others = [part for part in parts[place + 1 :] if next(edits.fields(part))[0] != number]
    assert found == b"".join(parts[:place]) + field + b"".join(others)


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_one_error_or_are_a_message(data: bytes) -> None:
    try:
        found = list(edits.fields(data))
    except edits.EditError:
        return
    assert b"".join(data[start:end] for _, _, _, start, end in found) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # no length
        b"\x0a\x05abc",  # beyond the end
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # more than 64 bits
        b"\x80" * 20,  # does not end
        b"\x00\x01",  # field number 0
        b"\x0b\x0c",  # a group
        b"\x09abc",  # eight bytes are not there
        b"\x0d\x00",  # four bytes are not there
    ],
)
def test_broken_messages(data: bytes) -> None:
    with pytest.raises(edits.EditError):
        list(edits.fields(data))


def test_the_last_value_counts_and_types_are_checked() -> None:
    data = edits.bytes_field(1, b"a") + edits.bytes_field(1, b"b") + edits.varint_field(2, 7) + edits.varint_field(2, 9)
    assert edits.last_bytes(data, 1) == b"b"
    assert edits.last_varint(data, 2) == 9
    assert edits.last_bytes(data, 3) == b""
    assert edits.last_varint(data, 3) == 0
    with pytest.raises(edits.EditError):
        edits.last_bytes(data, 2)
    with pytest.raises(edits.EditError):
        edits.last_varint(data, 1)


def test_a_negative_number_is_its_complement() -> None:
    assert edits.varint_field(1, -1) == b"\x08" + b"\xff" * 9 + b"\x01"


def test_change_message_joins_what_protobuf_would_merge() -> None:
    data = edits.bytes_field(6, b"ab") + edits.varint_field(2, 1) + edits.bytes_field(6, b"cd")
    changed = edits.change_message(data, 6, change=lambda body: body + b"!")
    assert changed == edits.bytes_field(6, b"abcd!") + edits.varint_field(2, 1)
    assert edits.change_message(b"", 6, change=lambda body: body + b"x") == edits.bytes_field(6, b"x")


def test_change_each_changes_drops_and_keeps() -> None:
    data = (
        edits.bytes_field(1, b"a")
        + edits.bytes_field(2, b"z")
        + edits.bytes_field(1, b"b")
        + edits.bytes_field(1, b"c")
    )
    table = {b"a": b"a", b"b": None, b"c": b"CC"}
    assert edits.change_each(data, 1, change=table.__getitem__) == (
        edits.bytes_field(1, b"a") + edits.bytes_field(2, b"z") + edits.bytes_field(1, b"CC")
    )
    with pytest.raises(edits.EditError):
        edits.change_each(edits.varint_field(1, 1), 1, change=lambda body: body)
