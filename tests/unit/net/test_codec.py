"""Netlink framing against bytes written by hand, and round trips."""

import errno
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import NetworkError
from caa.net import codec

little = pytest.mark.skipif(sys.byteorder != "little", reason="the fixed bytes are little-endian")


@little
def test_attribute_bytes():
    assert codec.text(3, "lo") == bytes.fromhex("0700 0300 6c6f0000")
    assert codec.u32(4, 1450) == bytes.fromhex("0800 0400 aa050000")
    assert codec.u8(7, 1) == bytes.fromhex("0500 0700 01000000")
    assert codec.nested(18, codec.u8(1, 2)) == bytes.fromhex("0c00 1200 0500 0100 02000000")


@little
def test_message_bytes():
    made = codec.message(16, 0x605, sequence=7, body=b"\1\2\3\4")
    assert made == bytes.fromhex("14000000 1000 0506 07000000 00000000 01020304")
    assert list(codec.messages(made)) == [codec.Message(16, 0x605, 7, b"\1\2\3\4")]


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_round_trip(pairs):
    data = b"".join(codec.attribute(kind, value) for kind, value in pairs)
    assert list(codec.items(data)) == pairs
    assert codec.attributes(data) == dict(pairs)


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_messages_round_trip(bodies):
    datagram = b""
    for sequence, body in enumerate(bodies):
        one = codec.message(20, 0, sequence=sequence, body=body)
        datagram += one + bytes(-len(one) % 4)
    assert [found.body for found in codec.messages(datagram)] == bodies


@given(st.binary(max_size=60))
def test_noise_is_an_error_or_attributes(data):
    try:
        found = list(codec.items(data))
    except NetworkError:
        return
    assert sum(4 + len(value) for _, value in found) <= len(data)


@given(st.binary(max_size=60))
def test_noise_is_an_error_or_messages(data):
    try:
        found = list(codec.messages(data))
    except NetworkError:
        return
    assert sum(16 + len(message.body) for message in found) <= len(data)


def test_flags_of_an_attribute_type_are_dropped():
    assert list(codec.items(codec.attribute(0x8000 | 12, b"abcd"))) == [(12, b"abcd")]


def test_too_long_an_attribute_is_refused():
    with pytest.raises(NetworkError, match="too long"):
        codec.attribute(1, bytes(70_000))


def test_numbers_and_strings():
    assert codec.number(struct.pack("=H", 513)) == 513
    assert codec.number(struct.pack("=Q", 1 << 40)) == 1 << 40
    assert codec.number(None, 9) == 9
    assert codec.string(b"eth0\0junk") == "eth0"
    assert codec.string(None) == ""


def acknowledgement(code: int, flags: int, rest: bytes) -> codec.Message:
    return codec.Message(codec.NLMSG_ERROR, flags, 1, struct.pack("=i", -code) + rest)


def test_success_is_none():
    assert codec.verdict(acknowledgement(0, codec.NLM_F_CAPPED, bytes(16))) is None


def test_extended_text_after_a_capped_echo():
    rest = struct.pack("=IHHII", 64, 16, 5, 1, 0) + codec.text(1, "Invalid gateway")
    refused = codec.verdict(acknowledgement(errno.EINVAL, codec.NLM_F_CAPPED | codec.NLM_F_ACK_TLVS, rest))
    assert refused is not None
    assert (refused.errno, refused.text) == (errno.EINVAL, "Invalid gateway")


def test_extended_text_after_the_whole_echo():
    echo = codec.message(16, 5, sequence=1, body=bytes(8))
    refused = codec.verdict(acknowledgement(errno.EPERM, codec.NLM_F_ACK_TLVS, echo + codec.text(1, "no")))
    assert refused is not None
    assert refused.text == "no"


def test_the_sentence_names_act_cause_and_number():
    said = str(codec.KernelRefused(errno.EEXIST, text="taken", what="add a thing"))
    assert said == "the kernel refused to add a thing: File exists (EEXIST): taken"
