"""Traffic control messages: fixed bytes, and what the kernel may hand back."""

import struct
import sys

import pytest

from caa.net import codec, traffic

little = pytest.mark.skipif(sys.byteorder != "little", reason="the fixed bytes are little-endian")
TC = "=BxxxiIII"  # family, index, handle, parent, info


@little
def test_ingress_bytes() -> None:
    assert traffic.ingress(2) == bytes.fromhex(
        "00000000 02000000 0000ffff f1ffffff 00000000"  # tcmsg: handle ffff:, TC_H_INGRESS
        "0c00 0100 696e677265737300"  # TCA_KIND ingress
    )


@little
def test_redirect_bytes() -> None:
    body = traffic.redirect(2, 5)
    assert body == bytes.fromhex(
        "00000000 02000000 00000000 f2ffffff 00030100"  # tcmsg: clsact's ingress, priority 1, ETH_P_ALL
        "0800 0100 75333200"  # TCA_KIND u32
        "6000 0200"  # TCA_OPTIONS
        "2400 0500 01000100 00000000 00000000 00000000 00000000 00000000 00000000 00000000"  # terminal, one key
        "3800 0700 3400 0100"  # TCA_U32_ACT, first action
        "0b00 0100 6d697272656400 00"  # mirred
        "2400 0200 2000 0200"  # TCA_MIRRED_PARMS
        "00000000 00000000 04000000 00000000 00000000 01000000 05000000"  # stolen, egress redirect, link 5
    )


@pytest.mark.parametrize("kind", ["u32", "matchall"])
def test_a_redirect_is_read_back(kind: str) -> None:
    body = bytearray(traffic.redirect(2, 5, kind=kind))
    assert traffic.read_filter(bytes(body)) is None  # no handle: the kernel's entry for the classifier itself
    body[8:12] = struct.pack("=I", 0x80000800)
    assert traffic.read_filter(bytes(body)) == traffic.Filter(priority=1, kind=kind, target=5)


def test_a_filter_of_somebody_else_has_no_target() -> None:
    body = struct.pack(TC, 0, 2, 1, 0xFFFFFFF2, 7 << 16) + codec.text(1, "bpf") + codec.nested(2, codec.u32(1, 3))
    assert traffic.read_filter(body) == traffic.Filter(priority=7, kind="bpf", target=None)


def test_a_hash_table_of_u32_is_no_rule() -> None:
    body = struct.pack(TC, 0, 2, 0x80000000, 0xFFFFFFF2, 1 << 16)
    body += codec.text(1, "u32") + codec.nested(2, codec.u32(2, 1))
    assert traffic.read_filter(body) is None


@pytest.mark.parametrize("action", ["gact", "mirred"])
def test_another_action_or_a_short_one_has_no_target(action: str) -> None:
    act = codec.nested(1, codec.text(1, action), codec.nested(2, codec.attribute(2, bytes(8))))
    body = struct.pack(TC, 0, 2, 1, 0xFFFFFFF2, 1 << 16) + codec.text(1, "matchall")
    body += codec.nested(2, codec.nested(2, act))
    assert traffic.read_filter(body) == traffic.Filter(priority=1, kind="matchall", target=None)


def test_of_several_actions_the_redirect_counts() -> None:
    parms = struct.pack("=IIiiiii", 0, 0, 4, 0, 0, 1, 9)
    first = codec.nested(1, codec.text(1, "gact"), codec.nested(2, codec.attribute(2, bytes(20))))
    second = codec.nested(2, codec.text(1, "mirred"), codec.nested(2, codec.attribute(2, parms)))
    body = struct.pack(TC, 0, 2, 1, 0xFFFFFFF2, 1 << 16) + codec.text(1, "matchall")
    body += codec.nested(2, codec.nested(2, first, second))
    assert traffic.read_filter(body) == traffic.Filter(priority=1, kind="matchall", target=9)


@pytest.mark.parametrize("kind", ["ingress", "clsact", "noqueue"])
def test_disciplines(kind: str) -> None:
    body = struct.pack(TC, 0, 7, 0xFFFF0000, traffic.INGRESS_PARENT, 1) + codec.text(1, kind)
    assert traffic.read_qdisc(body) == traffic.Qdisc(index=7, kind=kind, parent=traffic.INGRESS_PARENT)


def test_what_is_asked_for_and_what_is_deleted() -> None:
    assert struct.unpack(TC, traffic.redirects(3)) == (0, 3, 0, traffic.INGRESS_FILTERS, 0)
    index, handle, parent, info = struct.unpack(TC, traffic.our_filter(3))[1:]
    assert (index, handle, parent, info >> 16) == (3, 0, traffic.INGRESS_FILTERS, traffic.FILTER_PRIORITY)
    assert traffic.redirect(3, 4).startswith(traffic.our_filter(3))
