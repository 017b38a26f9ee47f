"""Applying plans: operations in order, and their undos in reverse when one fails."""

import errno
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from caa.errors import CaaError, NetworkError
from caa.net import codec, ops, traffic
from caa.net import messages as m
from caa.net.netlink import Netlink
from caa.net.ops import Op, Side

_log = logging.getLogger(__name__)

_NEW = codec.NLM_F_CREATE | codec.NLM_F_EXCL
_PUT = codec.NLM_F_CREATE | codec.NLM_F_REPLACE


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
            return _on(op, spaces, lambda i: m.link_change(i, up=op.up, mtu=op.mtu, hwaddr=op.hwaddr))
        case ops.NoLinkLocal():
            return _on(op, spaces, m.link_local_off)
        case ops.AddAddress():
            return _add_address(op, _netlink(spaces, op.side))
        case ops.AddRoute():
            link = _index(op, op.route.device, _netlink(spaces, op.side))
            return _send(op, _netlink(spaces, op.side), (m.RTM_NEWROUTE, _PUT, m.route(link, op.route)))
        case ops.AddNeighbour():
            link = _index(op, op.neighbour.device, _netlink(spaces, op.side))
            return _send(op, _netlink(spaces, op.side), (m.RTM_NEWNEIGH, _PUT, m.neighbour(link, op.neighbour)))
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


def _index(op: Op, device: str, netlink: Netlink) -> int:
    link = netlink.link(device)
    if link is None:
        raise NetworkError(f"cannot {op}: there is no interface {device}")
    return link.index


def _send(op: Op, netlink: Netlink, request: tuple[int, int, bytes], *, done: Sequence[int] = ()) -> bool:
    """Send; False when the kernel answers with one of the error numbers that mean "already so"."""
    kind, flags, body = request
    try:
        netlink.request(kind, flags, body, what=str(op))
    except codec.KernelRefused as error:
        if error.errno in done:
            return False
        raise
    return True


def _on(op: ops.ChangeLink | ops.NoLinkLocal, spaces: Namespaces, body: Callable[[int], bytes]) -> bool:
    netlink = _netlink(spaces, op.side)
    return _send(op, netlink, (m.RTM_NEWLINK, 0, body(_index(op, op.device, netlink))))


def _add_vxlan(op: ops.AddVxlan, spaces: Namespaces) -> bool:
    underlay = _index(op, op.underlay, spaces.host)
    vxlan = m.Vxlan(vni=op.vni, port=op.port, local=op.local, remote=op.remote, underlay=underlay)
    body = m.new_vxlan(op.device, vxlan, netns=spaces.pod_descriptor, mtu=op.mtu, hwaddr=op.hwaddr)
    return _send(op, spaces.host, (m.RTM_NEWLINK, _NEW, body))


def _delete_link(op: ops.DeleteLink, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is None:
        return False
    return _send(op, netlink, (m.RTM_DELLINK, 0, m.link_index(link.index)), done=(errno.ENODEV,))


def _add_address(op: ops.AddAddress, netlink: Netlink) -> bool:
    body = m.address(_index(op, op.device, netlink), op.address)
    return _send(op, netlink, (m.RTM_NEWADDR, _NEW, body), done=(errno.EEXIST,))


def _add_ingress(op: ops.AddIngress, netlink: Netlink) -> bool:
    body = traffic.ingress(_index(op, op.device, netlink))
    return _send(op, netlink, (traffic.RTM_NEWQDISC, _NEW, body), done=(errno.EEXIST,))


def _delete_ingress(op: ops.DeleteIngress, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is None or netlink.filters(link.index):
        return False
    ours = any(q.index == link.index and q.kind == "ingress" for q in netlink.qdiscs())
    gone = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
    return ours and _send(op, netlink, (traffic.RTM_DELQDISC, 0, traffic.ingress(link.index)), done=gone)


def _redirect(op: ops.Redirect, netlink: Netlink) -> bool:
    device, target = _index(op, op.device, netlink), _index(op, op.target, netlink)
    absent = (errno.ENOENT,)  # "TC classifier not found": kernels are built with one of the two, or both
    for_u32 = (traffic.RTM_NEWTFILTER, _NEW, traffic.redirect(device, target))
    for_all = (traffic.RTM_NEWTFILTER, _NEW, traffic.redirect(device, target, kind="matchall"))
    return _send(op, netlink, for_u32, done=absent) or _send(op, netlink, for_all)


def _clear_redirect(op: ops.ClearRedirect, netlink: Netlink) -> bool:
    link = netlink.link(op.device)
    if link is None:
        return False
    gone = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
    return _send(op, netlink, (traffic.RTM_DELTFILTER, 0, traffic.our_filter(link.index)), done=gone)
