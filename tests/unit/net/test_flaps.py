"""What counts as the return of the node's interface."""

from struct import pack

import pytest

from caa.net.codec import Message
from caa.net.flaps import Flaps

NEW, GONE, ADDRESS = 16, 17, 20
UP = 1


def news(kind: int, name: str, *, index: int = 2, flags: int = UP) -> Message:
    """struct ifinfomsg and IFLA_IFNAME, as in linux/rtnetlink.h."""
    text = name.encode() + b"\0"
    attribute = pack("=HH", 4 + len(text), 3) + text
    return Message(kind, 0, 0, pack("=BxHiII", 0, 1, index, flags, 0) + attribute + bytes(-len(attribute) % 4))


DOWN = news(NEW, "eth0", flags=0)
BACK = news(NEW, "eth0")


@pytest.mark.parametrize(
    ("messages", "back"),
    [
        ([BACK], False),
        ([BACK, BACK], False),
        ([DOWN], False),
        ([DOWN, BACK], True),
        ([news(GONE, "eth0"), BACK], True),
        ([BACK, news(NEW, "eth0", index=9)], True),
        ([news(NEW, "eth1", flags=0), news(NEW, "eth1")], False),
        ([DOWN, news(NEW, "eth1")], False),
        ([Message(ADDRESS, 0, 0, b"")], False),
        ([DOWN, BACK, BACK], True),
    ],
)
def test_a_return(messages: list[Message], back: bool) -> None:
    assert Flaps("eth0").heard(messages) is back


def test_over_several_reads() -> None:
    flaps = Flaps("eth0")
    assert not flaps.heard([BACK, DOWN])
    assert not flaps.heard([])
    assert flaps.heard([BACK])
    assert not flaps.heard([BACK])
