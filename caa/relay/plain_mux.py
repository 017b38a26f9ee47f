"""The mux of a pod whose forwarder has no sessions: the end of its link is the end of the pod, but for a hand-over."""

from __future__ import annotations

from caa.datapath.flight import reask
from caa.datapath.loop import IN, OUT
from caa.datapath.mux import Mux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.frames import Watch
    from caa.datapath.loop import Loop
    from caa.datapath.mux import Keeper
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject


class PlainMux(Mux):
    """Without a `sock`, after a hand-over, it reads no requests before `go_on`: nothing could keep them."""

    __slots__ = ()

    def __init__(
        self,
        loop: Loop,
        sock: Sock | None,
        *,
        tls: TlsObject | None,
        watch: Watch | None,
        keeper: Keeper,
    ) -> None:
        super().__init__(loop, sock, tls=tls, watch=watch, keeper=keeper)
        self.remember()
        self.stopped = sock is None

    def go_on(self, sock: Sock, tls: TlsObject | None) -> None:
        """Use another connection to the agent: calls under way are asked again where they may be, else refused."""
        self.connect(sock, tls)
        self.stopped = False
        reask(self)
        if self.outlet.rest is None and not self.closed:
            self._go_on()

    def freeze(self) -> None:
        """Stop reading and writing on both sides, for a successor; `thaw` or `leave` comes next."""
        self.loop.remove(self.fd)
        for branch in self.branches:
            branch.freeze()

    def thaw(self) -> None:
        """There is no successor after all."""
        for branch in self.branches:
            branch.thaw()
        if self.fd >= 0:
            mask = IN * (not self._held) | OUT * (self.outlet.rest is not None)
            self.loop.add(self.fd, mask, owner=self)
