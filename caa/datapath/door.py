"""The forwarder's table of sessions: what the first bytes of a link get. Pure."""

from __future__ import annotations

from caa.datapath.frames import Malformed
from caa.datapath.greeting import BEGIN_ANEW, GONE, HELLO, LATE, NO_AGENT, VERSION, WELCOME, Greeting, greet
from caa.datapath.session import LIMIT, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.frames import Buffer
    from caa.datapath.replay import Pool

# Sessions of one forwarder, as many as it takes connections. A pod has one; a relay that lost its memory makes another.
MAX_SESSIONS = 32


class Door:
    """The forwarder's sessions: what a HELLO gets."""

    __slots__ = ("_limit", "_pool", "sessions")

    def __init__(self, *, limit: int = LIMIT, pool: Pool | None = None) -> None:
        self._limit = limit
        self._pool = pool
        self.sessions: dict[bytes, Session] = {}

    def admit(self, data: Buffer, owner: bytes, *, word: int = 0) -> tuple[Session | None, bytes]:
        """What to do with a link that began with `data` under the certificate `owner`. Raises `Malformed`.

        A session, resumed, and the answer: its old link is replaced. Or None, and the answer after which the new link
        is closed: empty for a stranger. A HELLO that comes late leaves the present link alone. `word` is the agent's
        state: NO_AGENT, BEGIN_ANEW when nobody has asked it anything over our connection, or 0.
        """
        hello = Greeting(data)
        if hello.kind != HELLO:
            raise Malformed(f"a greeting of kind {hello.kind} from a client")
        if hello.version != VERSION:
            return None, greet(GONE, hello.identity, attempt=hello.attempt)
        if word == NO_AGENT:
            return None, greet(GONE, hello.identity, attempt=hello.attempt, word=NO_AGENT)
        session = self.sessions.get(hello.identity) or self._begin(hello, owner)
        if session is None:
            word = BEGIN_ANEW if word == BEGIN_ANEW and not hello.new else 0
            return None, greet(GONE, hello.identity, attempt=hello.attempt, word=word)
        if not session.authentic(hello, owner):
            return None, b""
        if hello.attempt <= session.attempt:
            return None, greet(LATE, hello.identity, attempt=session.attempt)
        if not session.can_resume(hello.count):
            return None, greet(GONE, hello.identity, attempt=hello.attempt)
        session.attempt = hello.attempt
        session.resume(hello.count)
        return session, greet(WELCOME, hello.identity, attempt=hello.attempt, count=session.got)

    def forget(self, session: Session) -> None:
        """The session has ended; its relay hears `Gone` from now on. One that is not here is fine."""
        self.sessions.pop(session.identity, None)

    def _begin(self, hello: Greeting, owner: bytes) -> Session | None:
        """A new session, if the client asks for one and has received nothing yet."""
        if not hello.new or hello.count or not hello.attempt or len(self.sessions) >= MAX_SESSIONS:
            return None
        session = Session(hello.identity, hello.secret, owner=owner, limit=self._limit, pool=self._pool)
        self.sessions[hello.identity] = session
        return session
