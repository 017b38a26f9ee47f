"""A session's state as it is kept and handed over: the recorded format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath.greeting import Greeting
from caa.datapath.session import Session, StateError
from tests.fakes.datapath.session_ends import IDENTITY, OWNER, SECRET, flush, frame

# A relay's end and a forwarder's end in mid-frame, as format 1 was first written. Must load for ever.
FORMAT_1_RELAY = (
    "434141530101000000000002000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6f70717273747576777879"
    "7a7b7c7d7e7f808182830000000000000000000000000000000f000000000000001a00000000000000000000000000000064"
    "0000000500000003010068656c6c6f"
)
FORMAT_1_FORWARDER = (
    "434141530104000b00000002000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6f70717273747576777879"
    "7a7b7c7d7e7f80818283000000000000000f000000000000001a000000000000000f00000000000000640000000000000000"
    "63657274696669636174653030303030303030303030"
)


class TestState:
    def test_format_1_of_a_relay(self) -> None:
        session = Session.load(bytes.fromhex(FORMAT_1_RELAY))
        assert (session.identity, session.owner, session.attempt) == (IDENTITY, None, 2)
        assert (session.sent, session.got, session._out_skip, session._in_skip) == (15, 26, 0, 100)
        session.resume(0)
        assert flush(session) == frame(b"hello", 3)
        assert session.dump() == bytes.fromhex(FORMAT_1_RELAY)
        assert session.hello()[11] == 0  # not new

    def test_format_1_of_a_forwarder(self) -> None:
        session = Session.load(bytes.fromhex(FORMAT_1_FORWARDER))
        assert (session.owner, session.sent, session.got, session._out_skip) == (OWNER, 26, 15, 100)
        session.resume(16)
        assert flush(session) == b"0" * 10
        assert session.authentic(Greeting(Session(IDENTITY, SECRET).hello()), OWNER)
        assert not session.authentic(Greeting(Session(IDENTITY, SECRET).hello()), b"another")

    @pytest.mark.parametrize("at", [0, 3, 4])
    def test_an_unknown_format_is_refused(self, at: int) -> None:
        data = bytearray.fromhex(FORMAT_1_RELAY)
        data[at] += 1
        with pytest.raises(StateError, match="unknown format"):
            Session.load(bytes(data))

    @given(st.integers(0, len(FORMAT_1_FORWARDER) // 2 - 1))
    def test_a_state_cut_short_is_refused(self, size: int) -> None:
        with pytest.raises(StateError):
            Session.load(bytes.fromhex(FORMAT_1_FORWARDER)[:size])

    def test_bytes_too_many_are_refused(self) -> None:
        with pytest.raises(StateError, match="announced"):
            Session.load(bytes.fromhex(FORMAT_1_RELAY) + b"x")

    def test_a_dump_leaves_the_session_serving(self, relay: Session, forwarder: Session) -> None:
        relay.send(frame(b"one"))
        relay.dump()
        assert relay.send(frame(b"two")) == frame(b"two")
