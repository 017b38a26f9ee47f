"""The agent links: for each sandbox `<pods dir>/<sandbox>/agent.ttrpc` here, one TLS connection to the VM there."""

from __future__ import annotations

from caa.datapath.clock import Clock
from caa.datapath.frames import CANCELLED, INVALID_ARGUMENT, Refused
from caa.datapath.greeting import PROTOCOL
from caa.datapath.heartbeat import DEAD_AFTER, LOOK
from caa.relay.contexts import Contexts
from caa.relay.folders import remove
from caa.relay.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from caa.datapath.frames import Watch
    from caa.datapath.loop import Loop
    from caa.relay.dial import Target
    from caa.relay.link import Waiter


class AgentFront:
    """All links of the node, by sandbox. `watch` holds the requests that are changed on the worker's side.

    `grace` is how many seconds a link with a session may be down; 0 means no sessions. `silence` is how long it may be
    silent, although it was asked, before it counts as cut.
    """

    __slots__ = ("_links", "_offering", "_plain", "clock", "grace", "loop", "pauses", "pods_dir", "silence", "watch")

    def __init__(
        self,
        loop: Loop,
        pods_dir: str,
        *,
        watch: Watch | None = None,
        grace: float = 0.0,
        silence: float = DEAD_AFTER,
    ) -> None:
        self.loop = loop
        self.clock = Clock(loop, LOOK * silence / DEAD_AFTER)
        self.grace = grace
        self.silence = silence
        self.pods_dir = pods_dir
        self.watch = watch or None
        self.pauses: list[float] = []  # seconds that links stood still for a hand-over
        self._links: dict[str, Link] = {}
        self._offering, self._plain = Contexts(PROTOCOL), Contexts("")

    def context(self, target: Target, *, session: bool) -> Any:
        """The TLS context of a link; one that came from another relay has a session or none, whatever `grace` is here.

        Raises `Refused`.
        """
        return (self._offering if session else self._plain).of(target)

    def open(self, sandbox: str, target: Target, *, seconds: float, waiter: Waiter) -> None:
        """Open a link; `waiter` hears how it went. Twice is once; another peer replaces the link. Raises `Refused`."""
        if not target.addresses:
            raise Refused(INVALID_ARGUMENT, f"no address for sandbox {sandbox}")
        link = self._links.get(sandbox)
        if link is not None and link.target.same_peer(target):
            target.volumes = link.target.volumes or target.volumes  # a node that lost its store knows none
            if link.connected():
                link.aim(target)
                waiter.done()
                return
            if link.dialling():
                link.aim(target)
                link.wait(seconds, waiter)
                return
        self.close(sandbox, "a newer request opens it towards another peer")
        link = Link(self, sandbox, target=target)
        link.dial(seconds, waiter)
        self._links[sandbox] = link

    def close(self, sandbox: str, why: str = "") -> None:
        """Close a link; one that is absent is fine. What a killed relay left of it goes too.

        The shim takes it as the end of its pod; a reason is written to the log.
        """
        link = self._links.pop(sandbox, None)
        if link is not None:
            if why:
                self.loop.count("link closed", f"sandbox={sandbox}: {why}")
            link.close(Refused(CANCELLED, f"sandbox {sandbox}: {why or 'the link was closed'}"))
        remove(f"{self.pods_dir}/{sandbox}")

    def links(self) -> list[Link]:
        """All links, in the order they were opened."""
        return list(self._links.values())

    def find(self, sandbox: str) -> Link | None:
        """The link of a sandbox."""
        return self._links.get(sandbox)

    def add(self, link: Link) -> None:
        """Take a link that came from another relay."""
        self._links[link.sandbox] = link

    def stood_still(self, seconds: float) -> None:
        """A link that came from another relay is served again."""
        self.pauses.append(seconds)

    def forget(self, link: Link) -> None:
        """Take a link that has failed off the list."""
        if self._links.get(link.sandbox) is link:
            del self._links[link.sandbox]

    def abandon(self, waiters: list[Waiter]) -> None:
        """The callers have gone: a dial for which nobody waits any more ends."""
        for link in self.links():
            left = tuple(waiter for waiter in link.waiters if waiter not in waiters)
            if link.waiters and not left and link.dialling() and not link.stands():
                link.waiters = ()
                self.close(link.sandbox)
            else:
                link.waiters = left

    def stop(self) -> None:
        """Close all links and remove their sockets."""
        for link in self.links():
            self.close(link.sandbox, "the relay stops")
