"""When the node's own interface comes back: what tells a flap among the kernel's news of links. Pure."""

from collections.abc import Iterable

from caa.net import codec
from caa.net import messages as m


class Flaps:
    """Follows one interface of the host, whether it is up, gone, or made again under its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._index = 0
        self._away = False

    def heard(self, news: Iterable[codec.Message]) -> bool:
        """Whether it has come back with these messages, after it was down or gone or as another device."""
        return sum(map(self._one, news)) > 0  # each has to be looked at

    def _one(self, message: codec.Message) -> bool:
        if message.kind not in (m.RTM_NEWLINK, m.RTM_DELLINK):
            return False
        link = m.read_link(message.body)
        if link.name != self.name:
            return False
        known, self._index = self._index, link.index
        if message.kind == m.RTM_DELLINK or not link.up:
            self._away = True
            return False
        back = self._away or known not in (0, link.index)
        self._away = False
        return back
