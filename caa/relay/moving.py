"""The state of a pod's link as it goes to another relay: written by the old one, taken up by the new one.

Fields of a link: 1 sandbox, 2 target, 3 session, 4 mux, 5 state, 6 milliseconds until it is given up. Descriptors: its
listener, then one for each connection of the shim. A session is `Session.dump`; the rest is written here.
"""

from __future__ import annotations

from caa.datapath.frames import HEADER_SIZE, Malformed
from caa.datapath.handover import Fields, blob, blobs, close_all, millis, number
from caa.datapath.mux import AS_THEY_ARE, MAX_BRANCHES
from caa.datapath.session import Session, StateError
from caa.datapath.sockets import Sock, inherit_unix, is_listening
from caa.datapath.tls import TlsFiles
from caa.relay.dial import Target
from caa.relay.link import Link
from caa.relay.plain_mux import PlainMux
from caa.relay.session_mux import SessionMux
from caa.relay.stops import is_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from caa.datapath.branch import Branch
    from caa.datapath.mux import Mux
    from caa.relay.agent_front import AgentFront

LOST, UP, DARK, PLAIN = range(4)


class BranchState:
    """A connection of the shim, as `_branch_state` wrote it."""

    __slots__ = ("drop", "late", "part", "rest")

    def __init__(self, data: bytes) -> None:
        fields = Fields(data)
        self.part = bytearray(fields.blob(1)) if fields.number(2) else None
        self.drop = fields.number(3)
        self.late = tuple(fields.blobs(4))
        self.rest = fields.blob(5)


class MuxState:
    """What `_mux_state` wrote, read to its end. Raises `Malformed`, `edits.EditError`."""

    __slots__ = ("answered", "branches", "calls", "flight", "identity", "last", "part", "places", "skip", "unsent")

    def __init__(self, data: bytes) -> None:
        fields = Fields(data)
        self.branches = [BranchState(one) for one in fields.blobs(11)]
        self.identity, self.last = fields.number(1), fields.number(2)
        self.places = tuple(fields.number(field) for field in (3, 4, 5))
        self.skip, self.part = fields.number(6), fields.blob(7)
        calls = [Fields(one) for one in fields.blobs(8)]
        self.calls = [(call.number(1), call.number(2), call.number(3)) for call in calls]
        self.answered = tuple(fields.numbers(9))
        self.flight = {call.number(1): call.blob(2) for call in map(Fields, fields.blobs(10))}
        sent = fields.number(12)
        self.unsent = (sent - 1, fields.number(13)) if sent else None
        self._check()

    def _check(self) -> None:
        count = len(self.branches)
        highest = max((*self.places, *(place for _, place, _ in self.calls)))
        if count > MAX_BRANCHES or highest > count:
            raise Malformed(f"connection {highest} of {count}")
        if any(0 < len(frame) < HEADER_SIZE for frame in self.flight.values()):
            raise Malformed("a call without a header")


class Arrived:
    """A link's state, read and found whole, but not in use yet. Raises `Malformed`, `edits.EditError`."""

    __slots__ = ("left", "mux", "sandbox", "session", "state", "target")

    def __init__(self, data: bytes, front: AgentFront) -> None:
        fields = Fields(data)
        self.sandbox = fields.text(1)
        self.target = target_of(fields.blob(2))
        self.state = fields.number(5)
        self.left = fields.number(6) / 1000
        self.mux = MuxState(fields.blob(4))
        self.session: Session | None = None
        if not is_safe(self.sandbox) or self.state > PLAIN:
            raise Malformed(f"a link {self.sandbox[:32]!r} in the state {self.state}")
        if not self.target.addresses:
            raise Malformed(f"no address for sandbox {self.sandbox}")
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
            blobs(11, (blob(1, source) + blob(2, about) for source, about in target.volumes)),
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
        blobs(
            8,
            (
                number(1, up) + number(2, place[asker]) + number(3, own)
                for up, (asker, own) in (mux.calls or {}).items()
            ),
        ),
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
    target.volumes = tuple((one.text(1), one.text(2)) for one in map(Fields, fields.blobs(11)))
    return target


def take_up(front: AgentFront, arrived: Arrived, *, fds: Sequence[int]) -> Link:
    """The link with all it had, in the list of the front, still without a connection to the pod VM.

    The descriptors are taken, or closed when it raises `Malformed`, or anything else.
    """
    link = Link(front, arrived.sandbox, target=arrived.target)
    if arrived.state == LOST:
        close_all(fds)
        front.add(link)
        return link
    try:
        if len(fds) != 1 + len(arrived.mux.branches):
            raise Malformed(f"{len(fds)} descriptors for {len(arrived.mux.branches)} connections")
        socks = _sockets(fds, listening=1)
    except Malformed:
        close_all(fds)
        raise
    try:
        mux = _new_mux(front, link, session=arrived.session)
        for state, sock in zip(arrived.mux.branches, socks[1:], strict=True):
            _take_branch(mux, state, sock=sock)
        _take_mux(mux, arrived.mux)
        listener = inherit_unix(front.loop, socks[0], path="", keeper=link)
    except BaseException:
        for sock in socks:
            front.loop.close(sock, sock.fileno())
        raise
    link.session, link.mux, link.listener = arrived.session, mux, listener
    front.add(link)
    return link


def listeners(fds: Sequence[int]) -> list[Sock]:
    """Listening sockets. Raises `Malformed`, and then no descriptor is taken or closed."""
    return _sockets(fds, listening=len(fds))


def _sockets(fds: Sequence[int], *, listening: int) -> list[Sock]:
    """Sockets of which the first ones listen. Raises `Malformed`, and then no descriptor is taken or closed."""
    socks: list[Sock] = []
    try:
        for fd in fds:
            socks.append(Sock(fileno=fd))
            socks[-1].setblocking(False)
            if is_listening(socks[-1]) != (len(socks) <= listening):
                raise Malformed(f"descriptor {len(socks)} of {len(fds)} is not what it should be")
    except (Malformed, OSError) as error:
        for sock in socks:
            sock.detach()
        raise Malformed(f"descriptors that cannot be used: {error}") from error
    return socks


def _new_mux(front: AgentFront, link: Link, *, session: Session | None) -> PlainMux | SessionMux:
    mux: PlainMux | SessionMux
    if session is None:
        mux = PlainMux(front.loop, None, tls=None, watch=front.watch, keeper=link)
    else:
        mux = SessionMux(front, None, tls=None, session=session, keeper=link)
        mux.stopped = session.full
    link.see(mux)
    return mux


def _take_branch(mux: Mux, state: BranchState, *, sock: Sock) -> None:
    branch = mux.new_branch()
    mux.adopt(branch)
    branch.connect(sock, None)
    branch.part = state.part
    branch.drop = state.drop
    branch.late = state.late
    if state.rest:
        branch.outlet.rest = bytearray(state.rest)
        branch.thaw()


def _take_mux(mux: Mux, state: MuxState) -> None:
    mux.identity, mux.last = state.identity, state.last
    mux.direct, mux.owner, mux.to = (_branch(mux, place) for place in state.places)
    mux.skip, mux.part = state.skip, state.part
    askers = ((up, _branch(mux, place), own) for up, place, own in state.calls)
    calls = {up: (asker, own) for up, asker, own in askers if asker is not None}
    mux.calls = calls if state.identity != AS_THEY_ARE else None
    mux.flight = dict(state.flight)
    if isinstance(mux, SessionMux):
        mux.answered = state.answered
        mux.unsent = state.unsent or (mux.session.sent, mux.last)


def _branch(mux: Mux, place: int) -> Branch | None:
    return mux.branches[place - 1] if place else None
