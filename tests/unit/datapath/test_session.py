"""The session's rules one by one: greeting, refusals, acknowledgements, heartbeat, end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath import greeting
from caa.datapath.door import MAX_SESSIONS, Door
from caa.datapath.frames import HEADER, Malformed
from caa.datapath.greeting import GREETING, Gone, Greeting, Late, control
from caa.datapath.heartbeat import BEAT_AFTER, DEAD_AFTER, LOOK
from caa.datapath.session import PUSH, RIDE, SMALL, Session
from tests.fakes.datapath.session_ends import IDENTITY, OWNER, SECRET, connect, frame, kinds


class TestGreeting:
    def test_both_greetings_have_the_one_size_that_is_read(self, relay: Session, door: Door) -> None:
        hello = relay.hello()
        _, answer = door.admit(hello, OWNER)
        assert len(hello) == len(answer) == GREETING == 74

    def test_the_secret_is_not_sent_back(self, relay: Session, door: Door) -> None:
        assert SECRET not in door.admit(relay.hello(), OWNER)[1]

    def test_an_unknown_session_is_gone(self, relay: Session, door: Door, forwarder: Session) -> None:
        door.forget(forwarder)
        door.forget(forwarder)
        session, answer = door.admit(relay.hello(), OWNER)
        assert session is None
        with pytest.raises(Gone, match="cannot go on"):
            relay.welcome(answer)

    def test_a_new_session_whose_answer_was_lost_begins_again_at_another_forwarder(self, relay: Session) -> None:
        Door().admit(relay.hello(), OWNER)
        assert connect(relay, Door())[0].up

    def test_another_version_is_refused_in_both_directions(self, relay: Session, door: Door) -> None:
        hello = bytearray(relay.hello())
        hello[10] = 2
        session, answer = door.admit(hello, OWNER)
        assert session is None
        assert Greeting(answer).kind == greeting.GONE
        newer = bytearray(answer)
        newer[10] = 2
        with pytest.raises(Gone, match="speaks version 2, we speak 1"):
            relay.welcome(newer)

    @pytest.mark.parametrize("secret", [b"x" * 32, SECRET[:-1] + b"x", b"x" + SECRET[1:], bytes(32)])
    def test_a_wrong_secret_is_a_stranger(self, door: Door, forwarder: Session, secret: bytes) -> None:
        thief = Session(IDENTITY, secret)
        thief.attempt = 100
        assert door.admit(thief.hello(), OWNER) == (None, b"")
        assert forwarder.up
        assert forwarder.attempt == 1

    @pytest.mark.parametrize("owner", [b"", b"certificatf", b"certificate2", b"certificat"])
    def test_the_right_secret_under_another_certificate_is_a_stranger(
        self, relay: Session, door: Door, forwarder: Session, owner: bytes
    ) -> None:
        assert door.admit(relay.hello(), owner) == (None, b"")
        assert forwarder.up

    def test_a_late_hello_leaves_the_live_link_alone(self, relay: Session, door: Door) -> None:
        late = relay.hello()
        forwarder, _, _ = connect(relay, door)
        session, answer = door.admit(late, OWNER)
        assert session is None
        assert forwarder.up
        assert Greeting(answer).kind == greeting.LATE
        assert connect(relay, door)[0] is forwarder

    def test_late_raises_the_number_so_that_the_next_dial_succeeds(self, relay: Session, door: Door) -> None:
        successor = Session.load(relay.dump())
        for _ in range(9):
            door.admit(successor.hello(), OWNER)
        with pytest.raises(Late):
            relay.welcome(door.admit(relay.hello(), OWNER)[1])
        assert connect(relay, door)[0].attempt == 10

    @pytest.mark.parametrize("attempt", [0, 0xFFFFFFFF])
    def test_late_with_a_number_that_leads_nowhere_is_malformed(self, relay: Session, attempt: int) -> None:
        relay.hello()
        with pytest.raises(Malformed):
            relay.welcome(greeting.greet(greeting.LATE, IDENTITY, attempt=attempt))

    def test_a_count_that_cannot_be_is_refused(self, relay: Session, door: Door, forwarder: Session) -> None:
        data = frame(b"x" * 600)
        forwarder.received(data)
        relay.send(data)
        old = Session.load(relay.dump())
        relay.received(memoryview(bytearray(forwarder.due(0))))
        forwarder.send(data)
        forwarder._acknowledge(610)
        old.attempt = 5
        session, answer = door.admit(old.hello(), OWNER)
        assert session is None
        assert Greeting(answer).kind == greeting.GONE
        assert forwarder.up

    @pytest.mark.parametrize("count", [0, 700])
    def test_a_welcome_that_names_what_was_not_sent_is_malformed(
        self, relay: Session, forwarder: Session, count: int
    ) -> None:
        relay.send(frame(b"x" * 600))
        relay._acknowledge(610)
        relay.hello()
        with pytest.raises(Malformed, match="cannot go on"):
            relay.welcome(greeting.greet(greeting.WELCOME, IDENTITY, attempt=2, count=count))

    def test_an_answer_to_another_attempt_or_session_is_malformed(self, relay: Session) -> None:
        relay.hello()
        with pytest.raises(Malformed):
            relay.welcome(greeting.greet(greeting.WELCOME, IDENTITY, attempt=2))
        with pytest.raises(Malformed, match="another session"):
            relay.welcome(greeting.greet(greeting.WELCOME, bytes(16), attempt=1))

    @given(st.binary(min_size=0, max_size=GREETING))
    def test_anything_else_is_malformed(self, data: bytes) -> None:
        with pytest.raises(Malformed):
            Door().admit(data, OWNER)

    def test_an_answer_is_no_hello(self, relay: Session, door: Door) -> None:
        with pytest.raises(Malformed):
            door.admit(door.admit(relay.hello(), OWNER)[1], OWNER)

    def test_only_so_many_sessions(self, door: Door) -> None:
        found = [door.admit(Session(bytes([n]) * 16, SECRET).hello(), OWNER)[0] for n in range(MAX_SESSIONS + 1)]
        assert all(found[:-1])
        assert found[-1] is None

    def test_what_was_said_before_the_first_link_follows_the_greeting(self, relay: Session, door: Door) -> None:
        assert relay.send(frame(b"early")) is None
        assert connect(relay, door)[1] == frame(b"early")


class TestAcknowledgements:
    def test_a_frame_goes_on_as_it_is(self, relay: Session, forwarder: Session) -> None:
        data = frame(b"hello")
        assert relay.send(data) is data

    def test_many_bytes_ride_with_the_next_frame(self, relay: Session, forwarder: Session) -> None:
        forwarder.passed(RIDE, 0)
        assert not forwarder.urgent
        assert forwarder.send(frame(b"a")) == control(greeting.ACK, RIDE.to_bytes(8, "big")) + bytes(frame(b"a"))
        assert kinds(forwarder.send(frame(b"a"))) == []

    def test_more_go_at_once(self, relay: Session, forwarder: Session) -> None:
        forwarder.passed(PUSH, 0)
        assert forwarder.urgent
        assert forwarder.attend() == control(greeting.ACK, PUSH.to_bytes(8, "big"))
        assert not forwarder.urgent

    def test_few_go_at_a_tick_and_very_few_wait_for_a_frame(self, relay: Session, forwarder: Session) -> None:
        forwarder.passed(SMALL - 1, 0)
        assert forwarder.due(0) == b""
        assert kinds(forwarder.send(frame(b"a"))) == [greeting.ACK]
        forwarder.passed(SMALL, 0)
        assert kinds(forwarder.due(0.1)) == [greeting.ACK]

    def test_an_acknowledgement_is_not_answered_by_one(self, relay: Session, forwarder: Session) -> None:
        relay.send(frame(b"x" * 600))
        forwarder.received(frame(b"x" * 600))
        relay.passed(30, 0)
        relay.received(memoryview(bytearray(forwarder.due(0))))
        assert relay.urgent
        assert relay.attend() == b""
        assert kinds(relay.send(frame(b"a"))) == []

    def test_nothing_is_put_into_a_frame(self, relay: Session, forwarder: Session) -> None:
        whole = frame(b"x" * 1000)
        forwarder.passed(PUSH, 0)
        assert kinds(forwarder.send(whole[:500])) == [greeting.ACK]
        forwarder.passed(PUSH, 0)
        assert forwarder.attend() == forwarder.due(9) == forwarder.ask() == b""
        assert forwarder.send(whole[500:900]) == whole[500:900]
        out = forwarder.send(memoryview(bytes(whole[900:]) + bytes(frame(b"next"))))
        assert out == bytes(whole[900:]) + control(greeting.ACK, (2 * PUSH).to_bytes(8, "big")) + bytes(frame(b"next"))

    def test_a_question_is_answered_whatever_the_count(self, relay: Session, forwarder: Session) -> None:
        forwarder.received(memoryview(bytearray(relay.ask())))
        assert kinds(forwarder.attend()) == [greeting.ACK]

    def test_full_stops_between_frames_only(self, door: Door) -> None:
        relay = Session(IDENTITY, SECRET, limit=1000)
        connect(relay, door)
        whole = frame(b"x" * 1990)
        relay.send(whole[:1500])
        assert (relay.full, relay.room(1 << 17)) == (True, 500)
        relay.send(whole[1500:])
        assert relay.room(1 << 17) == 0
        relay.received(memoryview(bytearray(control(greeting.ACK, (2000).to_bytes(8, "big")))))
        assert (relay.urgent, relay.full, relay.room(1 << 17)) == (True, False, 1 << 17)

    @pytest.mark.parametrize(
        "wrong",
        [
            control(greeting.ACK, (11).to_bytes(8, "big")),
            control(greeting.ACK, b"1234"),
            control(greeting.ACK, b"x" * 9),
            control(greeting.HELLO, b"x" * 64),
            control(greeting.GONE),
            control(77),
        ],
    )
    def test_nonsense_is_malformed(self, relay: Session, forwarder: Session, wrong: bytes) -> None:
        relay.send(frame(b""))
        with pytest.raises(Malformed):
            relay.received(memoryview(bytearray(wrong)))

    def test_what_waits_behind_a_replay_cannot_be_acknowledged(self, relay: Session, door: Door) -> None:
        relay.send(frame(b"early"))
        relay.welcome(door.admit(relay.hello(), OWNER)[1])
        with pytest.raises(Malformed):
            relay.received(memoryview(bytearray(control(greeting.ACK, (15).to_bytes(8, "big")))))

    def test_a_run_that_ends_within_a_header_is_refused(self, relay: Session) -> None:
        with pytest.raises(Malformed, match="within a header"):
            relay.send(frame(b"abc")[:9])


class TestReceived:
    @given(st.integers(0, 14))
    def test_a_header_in_two_pieces(self, at: int) -> None:
        """Behind its first 4 bytes this frame looks like another whole one."""
        session, whole = Session(IDENTITY, SECRET), frame(b"abcde")
        runs = [run for piece in (whole[:at], whole[at:]) for run in session.received(piece)]
        assert b"".join(runs) == whole
        assert (session.got, session.part) == (15, b"")

    @given(st.integers(1, 17))
    def test_half_a_control_frame_counts_for_nothing_and_is_gone_with_the_link(self, size: int) -> None:
        session = Session(IDENTITY, SECRET)
        data = memoryview(bytearray(bytes(frame(b"a")) + control(greeting.ACK, bytes(8))[:size]))
        assert session.received(data) == [frame(b"a")]
        assert len(session.part) == size
        session.cut()
        assert session.received(frame(b"b")) == [frame(b"b")]
        assert session.got == 22

    def test_a_frame_that_only_looks_like_control_is_the_application_s(self) -> None:
        session = Session(IDENTITY, SECRET)
        odd = memoryview(bytearray(HEADER.pack(0, 1, greeting.CONTROL, greeting.END)))
        assert session.received(odd) == [odd]
        assert (session.ended, session.got) == (False, 10)


class TestHeartbeat:
    def test_no_question_while_something_comes(self, relay: Session, forwarder: Session) -> None:
        for second in range(30):
            relay.passed(1, 0)
            assert greeting.PING not in kinds(relay.due(second))
        assert not relay.dead(29)

    def test_silence_is_asked_into_and_the_answer_counts(self, relay: Session, forwarder: Session) -> None:
        sent = []
        for second in range(60):
            ping = relay.due(second)
            sent += kinds(ping)
            forwarder.received(memoryview(bytearray(ping)))
            relay.received(memoryview(bytearray(forwarder.attend())))
            assert not relay.dead(second)
        assert 10 <= sent.count(greeting.PING) <= 60 / BEAT_AFTER

    def test_a_cut_is_noticed_within_ten_seconds(self, relay: Session, forwarder: Session) -> None:
        relay.due(0.0)
        relay.passed(1, 0)  # just after the look
        now = 0.0
        while not relay.dead(now):
            now += LOOK
            relay.due(now)
        assert DEAD_AFTER < now <= 10

    def test_our_own_silence_proves_nothing(self, relay: Session, forwarder: Session) -> None:
        for second in range(60):
            relay.due(second, reading=False)
            assert not relay.dead(second)

    def test_a_forwarder_that_cannot_read_says_that_it_lives(self, relay: Session, forwarder: Session) -> None:
        for second in range(60):
            relay.due(second)
            relay.received(memoryview(bytearray(forwarder.due(second, reading=False))))
            assert not relay.dead(second)

    def test_a_new_link_is_not_dead_of_the_old_ones_silence(self, relay: Session, door: Door) -> None:
        connect(relay, door)
        relay.due(0)
        relay.due(20)
        assert relay.dead(20)
        relay.cut()
        assert not relay.dead(20)
        connect(relay, door)
        relay.due(500)
        assert not relay.dead(500)


class TestEnd:
    def test_the_end_comes_after_everything(self, relay: Session, door: Door) -> None:
        forwarder, _, _ = connect(relay, door)
        relay.cut()
        relay.send(frame(b"last"))
        relay.end()
        assert relay.attend() == b""
        _, again, _ = connect(relay, door)
        assert again == bytes(frame(b"last")) + control(greeting.END)
        assert [bytes(run) for run in forwarder.received(memoryview(bytearray(again)))] == [bytes(frame(b"last"))]
        assert forwarder.ended
        assert relay.due(0) == b""

    def test_an_end_that_was_lost_is_said_again(self, relay: Session, door: Door, forwarder: Session) -> None:
        relay.end()
        assert relay.attend() == control(greeting.END)
        assert connect(Session.load(relay.dump()), door)[1] == control(greeting.END)

    def test_no_end_within_a_frame(self, relay: Session, forwarder: Session) -> None:
        relay.send(frame(b"abc")[:-1])
        relay.end()
        assert relay.attend() == b""
