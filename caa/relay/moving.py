"""The state of a pod's link as it goes to another relay: written by the old one, taken up by the new one.

Fields of a link: 1 sandbox, 2 target, 3 session, 4 mux, 5 state, 6 milliseconds until it is given up. Descriptors: its
listener, then one for each connection of the shim. A session is `Session.dump`; the rest is written here.
"""

from __future__ import annotations

from caa.datapath.frames import Malformed
from caa.datapath.handover import Fields, blob, blobs, millis, number
from caa.datapath.session import Session, StateError
from caa.datapath.sockets import Sock, inherit_unix
from caa.datapath.tls import TlsFiles
from caa.relay.dial import Target
from caa.relay.folders import SOCKET
from caa.relay.link import Link
from caa.relay.plain_mux import PlainMux
from caa.relay.session_mux import SessionMux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from caa.datapath.branch import Branch
    from caa.datapath.mux import Mux
    from caa.relay.agent_front import AgentFront

LOST, UP, DARK, PLAIN = range(4)


class Arrived:
    """A link's state, read and found whole, but not in use yet. Raises `Malformed`, `edits.EditError`."""

    __slots__ = ("left", "mux", "sandbox", "session", "state", "target")

    def __init__(self, data: bytes, front: AgentFront) -> None:
        fields = Fields(data)
        self.sandbox = fields.text(1)
        self.target = target_of(fields.blob(2))
        self.state = fields.number(5)
        self.left = fields.number(6) / 1000
        self.mux = Fields(fields.blob(4))
        self.session: Session | None = None
        if not self.sandbox or self.state > PLAIN:
            raise Malformed(f"a link {self.sandbox!r} in the state {self.state}")
        if self.state in (UP, DARK):
            try:
                self.session = Session.load(fields.blob(3), pool=front.loop.pool)
            except StateError as error:
                raise Malformed(str(error)) from error
            self.session.suffer(front.silence)


# The old relay


def dump(link: Link) -> tuple[bytes, list[int]]:
    """A link's state and its descriptors. The link goes on here when it was not frozen before."""
    mux = link.mux
    parts = blob(1, link.sandbox) + blob(2, target_state(link.target))
    if mux is None or link.listener is None:
        return parts + number(5, LOST), []
    if isinstance(mux, SessionMux):
        parts += blob(3, mux.session.dump()) + number(5, DARK if mux.dark else UP)
    else:
        parts += number(5, PLAIN)
    if mux.dark:
        parts += number(6, millis(link.deadline - link.loop.now()))
    return parts + blob(4, _mux_state(mux)), [link.listener.fd, *(branch.fd for branch in mux.branches)]


def target_state(target: Target) -> bytes:
    """Where a pod VM is and who it has to be."""
    files = target.files
    return b"".join(
        (
            blobs(1, target.addresses),
            number(2, target.port),
            blob(3, target.server_name),
            blob(4, files.ca),
            blob(5, files.cert),
            blob(6, files.key),
            blob(7, files.min_version),
            blobs(8, files.ciphers),
            number(9, target.skip_verify),
            number(10, target.disable_tls),
        )
    )


def _mux_state(mux: Mux) -> bytes:
    """1 identity, 2 last, 3 direct, 4 owner, 5 to, 6 skip, 7 part, 8 calls, 9 answered, 10 calls in
    flight, 11 branches, 12 and 13 what has never left: the count before it, plus 1, and the id.

    A branch is named by its place in the list, counted from 1; 0 is none.
    """
    place = {branch: at for at, branch in enumerate(mux.branches, 1)}
    parts = [
        number(1, mux.identity),
        number(2, mux.last),
        number(3, place.get(mux.direct, 0) if mux.direct is not None else 0),
        number(4, place.get(mux.owner, 0) if mux.owner is not None else 0),
        number(5, place.get(mux.to, 0) if mux.to is not None else 0),
        number(6, mux.skip),
        blob(7, mux.part),
        blobs(8, (number(1, up) + number(2, place[asker]) + number(3, own) for up, (asker, own) in mux.calls.items())),
    ]
    if isinstance(mux, SessionMux):
        parts += [number(9, stream) for stream in sorted(mux.answered)]
        parts += [number(12, mux.unsent[0] + 1), number(13, mux.unsent[1])] if mux.unsent is not None else []
    parts.append(blobs(10, (number(1, stream) + blob(2, frame) for stream, frame in (mux.flight or {}).items())))
    parts.append(blobs(11, (_branch_state(branch) for branch in mux.branches)))
    return b"".join(parts)


def _branch_state(branch: Branch) -> bytes:
    """1 the beginning of a request (2: there is one), 3 bytes to drop, 4 answers of our own, 5 what waits unsent."""
    return b"".join(
        (
            blob(1, branch.part or b""),
            number(2, branch.part is not None),
            number(3, branch.drop),
            blobs(4, branch.late),
            blob(5, branch.outlet.rest or b""),
        )
    )


# The new relay


def target_of(data: bytes) -> Target:
    """What `target_state` wrote."""
    fields = Fields(data)
    files = TlsFiles(ca=fields.text(4), cert=fields.text(5), key=fields.text(6), min_version=fields.text(7))
    files.ciphers = tuple(fields.texts(8))
    target = Target(tuple(fields.texts(1)), fields.number(2), server_name=fields.text(3), files=files)
    target.skip_verify = bool(fields.number(9))
    target.disable_tls = bool(fields.number(10))
    return target


def take_up(front: AgentFront, arrived: Arrived, *, fds: Sequence[int]) -> Link:
    """The link with all it had, in the list of the front, still without a connection to the pod VM.

    Raises `Malformed`, and then no descriptor is taken.
    """
    branches = arrived.mux.blobs(11)
    link = Link(front, arrived.sandbox, target=arrived.target)
    if arrived.state == LOST:
        front.add(link)
        return link
    if len(fds) != 1 + len(branches):
        raise Malformed(f"{len(fds)} descriptors for {len(branches)} connections")
    mux = _new_mux(front, link, session=arrived.session)
    for state, fd in zip(branches, fds[1:], strict=True):
        _take_branch(mux, Fields(state), fd=fd)
    _take_mux(mux, arrived.mux)
    link.session, link.mux = arrived.session, mux
    path = f"{front.pods_dir}/{arrived.sandbox}/{SOCKET}"
    link.listener = inherit_unix(front.loop, fds[0], path=path, accepted=link.accepted)
    front.add(link)
    return link


def _new_mux(front: AgentFront, link: Link, *, session: Session | None) -> PlainMux | SessionMux:
    if session is None:
        return PlainMux(front.loop, None, tls=None, watch=front.watch, lost=link.lost)
    mux = SessionMux(front, None, tls=None, session=session, keeper=link)
    mux.stopped = session.full
    return mux


def _take_branch(mux: Mux, state: Fields, *, fd: int) -> None:
    branch = mux.new_branch()
    mux.adopt(branch)
    branch.connect(Sock(fileno=fd), None)
    branch.part = bytearray(state.blob(1)) if state.number(2) else None
    branch.drop = state.number(3)
    branch.late = state.blobs(4)
    if state.blob(5):
        branch.outlet.rest = bytearray(state.blob(5))
        branch.thaw()


def _take_mux(mux: Mux, state: Fields) -> None:
    mux.identity, mux.last = state.number(1), state.number(2)
    mux.direct, mux.owner, mux.to = (_branch(mux, state.number(field)) for field in (3, 4, 5))
    mux.skip, mux.part = state.number(6), state.blob(7)
    for call in map(Fields, state.blobs(8)):
        asker = _branch(mux, call.number(2))
        if asker is not None:
            mux.calls[call.number(1)] = asker, call.number(3)
    mux.flight = {call.number(1): call.blob(2) for call in map(Fields, state.blobs(10))}
    if isinstance(mux, SessionMux):
        mux.answered = set(state.numbers(9))
        sent = state.number(12)
        mux.unsent = (sent - 1, state.number(13)) if sent else (mux.session.sent, mux.last)


def _branch(mux: Mux, place: int) -> Branch | None:
    if place > len(mux.branches):
        raise Malformed(f"connection {place} of {len(mux.branches)}")
    return mux.branches[place - 1] if place else None
