"""Both ends of a session in one process: frames, what is to be sent, and their greeting."""

from caa.datapath import greeting
from caa.datapath.door import Door
from caa.datapath.frames import HEADER
from caa.datapath.session import Session

IDENTITY, SECRET, OWNER = bytes(range(16)), bytes(range(100, 132)), b"certificate"


def frame(payload: bytes, stream: int = 1) -> memoryview:
    return memoryview(bytearray(HEADER.pack(len(payload), stream, 1, 0) + payload))


def kinds(data: object) -> list[int]:
    """The kinds of the control frames in a row of frames."""
    found, view = [], memoryview(data)  # type: ignore[arg-type]
    while view:
        size, stream, kind, flags = HEADER.unpack_from(view)
        if not stream and kind == greeting.CONTROL:
            found.append(flags)
        view = view[10 + size :]
    return found


def flush(session: Session) -> bytes:
    out = b""
    while (block := session.next()) is not None:
        out += block
    return out


def connect(relay: Session, door: Door) -> tuple[Session, bytes, bytes]:
    """The forwarder's end, and what each side then has to send again."""
    forwarder, answer = door.admit(relay.hello(), OWNER)
    assert forwarder is not None
    relay.welcome(answer)
    return forwarder, flush(relay), flush(forwarder)
