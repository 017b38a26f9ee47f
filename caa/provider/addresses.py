"""Which addresses of a pod VM the worker node uses, in an order that never changes. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from caa.model.instance import IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """The addresses of one network interface, as texts of the cloud; empty ones are not there yet."""

    private: Sequence[str] = ()
    public: Sequence[str] = ()


def reachable(nics: Sequence[Nic], *, public: bool) -> tuple[IPAddress, ...]:
    """The addresses to try, the preferred one first; empty while the one that counts is not there yet.

    Without `public` the private ones, interface by interface. With it the public ones come first, the private ones
    after them, and nothing counts before the first interface has a public one.
    """
    if not nics or not nics[0].private or (public and not nics[0].public):
        return ()
    wanted = [text for nic in nics for text in nic.public] if public else []
    return _addresses([*wanted, *(text for nic in nics for text in nic.private)])


def _addresses(texts: Iterable[str]) -> tuple[IPAddress, ...]:
    found = (ip_address(text) for text in texts if text)
    return tuple(dict.fromkeys(one for one in found if not one.is_unspecified))
