"""What traffic control messages say, pure: the ingress discipline and the filter that redirects all packets.

Layouts and numbers: linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h. The filter hangs where `ingress` and `clsact`
both take filters of incoming packets, so a discipline that a CNI plugin already placed is used as it is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from caa.net.codec import attribute, attributes, items, nested, string, text

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

INGRESS_PARENT = 0xFFFFFFF1  # where both `ingress` and `clsact` hang
INGRESS_FILTERS = 0xFFFFFFF2  # filters of incoming packets, valid for both kinds
FILTER_PRIORITY = 1  # the first filter to look at a packet; ours alone
_INGRESS_HANDLE = 0xFFFF0000
_ETH_P_ALL = 0x0300 if struct.pack("=H", 1) == b"\1\0" else 0x0003  # network byte order
_TC = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_MIRRED = struct.Struct("=IIiiiii")  # index, capabilities, action, references, binds, mirred action, interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Qdisc:
    """A queueing discipline: its interface, kind, and where it hangs."""

    index: int
    kind: str
    parent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of incoming packets: `target` is the interface index it redirects to, None when it does not redirect."""

    priority: int
    kind: str
    target: int | None = None


def ingress(index: int) -> bytes:
    """The `ingress` queueing discipline of the interface `index`, to add or to delete."""
    return _TC.pack(0, index, _INGRESS_HANDLE, INGRESS_PARENT, 0) + text(1, "ingress")


def redirect(index: int, target: int, *, kind: str = "u32") -> bytes:
    """A filter that sends every incoming packet of `index` out of `target`.

    `kind` is `u32` (an all-matching key, terminal) or `matchall`; a kernel may lack one of them (`testbed.md` 4).
    """
    parms = attribute(2, _MIRRED.pack(0, 0, 4, 0, 0, 1, target))  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
    action = nested(1, text(1, "mirred"), nested(2, parms))
    if kind == "u32":
        select = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + struct.pack("=IIii", 0, 0, 0, 0)
        options = nested(2, attribute(5, select), nested(7, action))
    else:
        options = nested(2, nested(2, action))
    return _filter(index) + text(1, kind) + options


def redirects(index: int) -> bytes:
    """All filters of incoming packets of `index`, to dump."""
    return _TC.pack(0, index, 0, INGRESS_FILTERS, 0)


def our_filter(index: int) -> bytes:
    """Whatever stands at our priority on `index`, to delete."""
    return _filter(index)


def _filter(index: int) -> bytes:
    return _TC.pack(0, index, 0, INGRESS_FILTERS, FILTER_PRIORITY << 16 | _ETH_P_ALL)


def read_qdisc(body: bytes) -> Qdisc:
    """Decode RTM_NEWQDISC."""
    _, index, _, parent, _ = _TC.unpack_from(body)
    return Qdisc(index=index, kind=string(attributes(body[_TC.size :]).get(1)), parent=parent)


def read_filter(body: bytes) -> Filter | None:
    """Decode RTM_NEWTFILTER; None for entries that hold no rule (a u32 hash table, a classifier's head)."""
    _, _, handle, _, info = _TC.unpack_from(body)
    found = attributes(body[_TC.size :])
    kind, options = string(found.get(1)), attributes(found.get(2, b""))
    if not handle or not options or (kind == "u32" and 5 not in options):
        return None
    acts = options.get({"u32": 7, "matchall": 2}.get(kind, 0), b"")
    return Filter(priority=info >> 16, kind=kind, target=next(_targets(acts), None))


def _targets(acts: bytes) -> Iterator[int]:
    for _, act in items(acts):
        found = attributes(act)
        parms = attributes(found.get(2, b"")).get(2, b"")
        if string(found.get(1)) == "mirred" and len(parms) >= _MIRRED.size:
            yield _MIRRED.unpack_from(parms)[6]
