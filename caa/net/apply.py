"""Applying plans: operations in order, and their undos in reverse when one fails."""

import errno
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from caa.errors import CaaError, NetworkError
from caa.net import codec, ops, traffic
from caa.net import messages as m
from caa.net.netlink import Netlink
from caa.net.ops import Op, Side

_log = logging.getLogger(__name__)

_NEW = codec.NLM_F_CREATE | codec.NLM_F_EXCL
_PUT = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)  # no such filter, no discipline at all, no link


class Namespaces(Protocol):
    """Two open namespaces: where operations go, and the pod's descriptor to place links into."""

    @property
    def host(self) -> Netlink: ...

    @property
    def pod(self) -> Netlink: ...

    @property
    def pod_descriptor(self) -> int: ...


def apply(plan: Sequence[Op], spaces: Namespaces) -> None:
    """Do all of `plan` or leave nothing of it: what was made is undone, then the error is raised."""
    made: list[Op] = []
    try:
        for op in plan:
            if perform(op, spaces) and (undo := op.undo()) is not None:
                made.append(undo)
    except CaaError:
        _undo(made, spaces)
        raise


def _undo(made: Sequence[Op], spaces: Namespaces) -> None:
    for op in reversed(made):
        try:
            perform(op, spaces)
        except CaaError as error:  # the first error is the one to report; this one only explains leftovers
            _log.warning("while undoing a failed network set-up: %s", error)


def perform(op: Op, spaces: Namespaces) -> bool:
    """Do one operation; False when things already were as it wants them. Raises `NetworkError`."""
    match op:
        case ops.AddVxlan():
            return _add_vxlan(op, spaces)
        case ops.DeleteLink():
            return _delete_link(op, _netlink(spaces, op.side))
        case ops.ChangeLink():
            return _change_link(op, _netlink(spaces, op.side))
        case ops.NoLinkLocal():
            return _no_link_local(op, _netlink(spaces, op.side))
        case ops.AddAddress():
            return _add_address(op, _netlink(spaces, op.side))
        case ops.AddRoute():
            return _add_route(op, _netlink(spaces, op.side))
        case ops.AddNeighbour():
            return _add_neighbour(op, _netlink(spaces, op.side))
        case ops.AddIngress():
            return _add_ingress(op, _netlink(spaces, op.side))
        case ops.DeleteIngress():
            return _delete_ingress(op, _netlink(spaces, op.side))
        case ops.Redirect():
            return _redirect(op, _netlink(spaces, op.side))
        case ops.ClearRedirect():
            return _clear_redirect(op, _netlink(spaces, op.side))


def _netlink(spaces: Namespaces, side: Side) -> Netlink:
    return spaces.host if side is Side.HOST else spaces.pod


def _index(netlink: Netlink, device: str, *, op: Op) -> int:
    link = netlink.link(device)
    if link is None:
        raise NetworkError(f"cannot {op}: there is no interface {device}")
    return link.index


def _send(netlink: Netlink, op: Op, *, kind: int, body: bytes, flags: int = 0) -> bool:
    """Send, with the operation's sentence for an error."""
    netlink.change(kind, body, flags=flags, what=str(op))
    return True


class _AsDone:
    """A block in which the kernel's refusals with some numbers mean that there is nothing to do."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        return isinstance(error, codec.KernelRefused) and error.errno in self._numbers


def _add_vxlan(op: ops.AddVxlan, spaces: Namespaces) -> bool:
    vxlan = m.Vxlan(vni=op.vni, port=op.port, local=op.local, remote=op.remote)
    body = m.new_vxlan(op.device, vxlan, netns=spaces.pod_descriptor, mtu=op.mtu, hwaddr=op.hwaddr)
    try:
        return _send(spaces.host, op, kind=m.RTM_NEWLINK, body=body, flags=_NEW)
    except codec.KernelRefused as error:
        if error.errno != errno.EEXIST or spaces.pod.link(op.device) is not None:
            raise
    return _add_vxlan_renamed(op, spaces, vxlan=vxlan)


def _add_vxlan_renamed(op: ops.AddVxlan, spaces: Namespaces, *, vxlan: m.Vxlan) -> bool:
    """For a pod whose interface is called as the host's own: before Linux 6.15 the kernel looks for the name there too.

    So it is made under another name and named in the pod's namespace.
    """
    passing = f"vxlan-{op.vni:x}"
    body = m.new_vxlan(passing, vxlan, netns=spaces.pod_descriptor, mtu=op.mtu, hwaddr=op.hwaddr)
    _send(spaces.host, op, kind=m.RTM_NEWLINK, body=body, flags=_NEW)
    try:
        index = _index(spaces.pod, passing, op=op)
        return _send(spaces.pod, op, kind=m.RTM_NEWLINK, body=m.link_name(index, op.device))
    except CaaError:
        _delete_link(ops.DeleteLink(side=Side.POD, device=passing), spaces.pod)
        raise


def _delete_link(op: ops.DeleteLink, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is not None:
        with _AsDone(errno.ENODEV):
            return _send(netlink, op, kind=m.RTM_DELLINK, body=m.link_index(link.index))
    return False


def _change_link(op: ops.ChangeLink, netlink: Netlink) -> bool:
    body = m.link_change(_index(netlink, op.device, op=op), up=op.up, mtu=op.mtu, hwaddr=op.hwaddr, alias=op.alias)
    return _send(netlink, op, kind=m.RTM_NEWLINK, body=body)


def _no_link_local(op: ops.NoLinkLocal, netlink: Netlink) -> bool:
    return _send(netlink, op, kind=m.RTM_NEWLINK, body=m.link_local_off(_index(netlink, op.device, op=op)))


def _add_address(op: ops.AddAddress, netlink: Netlink) -> bool:
    body = m.address(_index(netlink, op.device, op=op), op.address)
    with _AsDone(errno.EEXIST):
        return _send(netlink, op, kind=m.RTM_NEWADDR, body=body, flags=_NEW)
    return False


def _add_route(op: ops.AddRoute, netlink: Netlink) -> bool:
    body = m.route(_index(netlink, op.route.device, op=op), op.route)
    return _send(netlink, op, kind=m.RTM_NEWROUTE, body=body, flags=_PUT)


def _add_neighbour(op: ops.AddNeighbour, netlink: Netlink) -> bool:
    body = m.neighbour(_index(netlink, op.neighbour.device, op=op), op.neighbour)
    return _send(netlink, op, kind=m.RTM_NEWNEIGH, body=body, flags=_PUT)


def _add_ingress(op: ops.AddIngress, netlink: Netlink) -> bool:
    body = traffic.ingress(_index(netlink, op.device, op=op))
    with _AsDone(errno.EEXIST):
        return _send(netlink, op, kind=traffic.RTM_NEWQDISC, body=body, flags=_NEW)
    return False


def _delete_ingress(op: ops.DeleteIngress, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is None or netlink.filters(link.index):
        return False
    if not any(q.index == link.index and q.kind == "ingress" for q in netlink.qdiscs()):
        return False
    with _AsDone(*_GONE):
        return _send(netlink, op, kind=traffic.RTM_DELQDISC, body=traffic.ingress(link.index))
    return False


def _redirect(op: ops.Redirect, netlink: Netlink) -> bool:
    device, target = _index(netlink, op.device, op=op), _index(netlink, op.target, op=op)
    with _AsDone(errno.ENOENT):  # "TC classifier not found": a kernel may be built with one of the two only
        return _send(netlink, op, kind=traffic.RTM_NEWTFILTER, body=traffic.redirect(device, target), flags=_NEW)
    body = traffic.redirect(device, target, kind="matchall")
    return _send(netlink, op, kind=traffic.RTM_NEWTFILTER, body=body, flags=_NEW)


def _clear_redirect(op: ops.ClearRedirect, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is not None:
        with _AsDone(*_GONE):
            return _send(netlink, op, kind=traffic.RTM_DELTFILTER, body=traffic.our_filter(link.index))
    return False
