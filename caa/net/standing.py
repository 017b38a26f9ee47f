"""Finding the tunnels that stand, for a node that has lost its records: every pod's namespace is looked into."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import structlog

from caa.errors import CaaError
from caa.model.network import IPInterface, Standing, Tunnel
from caa.net import label, netns, spaces, vxlan
from caa.net import messages as m
from caa.net.inspect import pod_network
from caa.net.netlink import Netlink

log = structlog.get_logger(__name__)

# Where the runtimes keep pods' namespaces: CNI's own place, and the same by its older name.
FOLDERS = (Path("/run/netns"), Path("/var/run/netns"))


def find(folders: Iterable[Path], *, port: int, min_id: int) -> Sequence[Standing]:
    """The tunnels in the namespaces of these folders that use our port and an id of ours. What cannot be looked at is
    told in the log and left out."""
    with Netlink.open() as host:
        ours = [address.interface for address in host.addresses()]
    found = []
    for path in _namespaces(folders):
        try:
            one = _standing(path, ours)
        except CaaError as error:  # a namespace that goes while we look, or one that is no pod's
            log.debug("a namespace could not be looked at", netns=path, error=str(error))
            continue
        if one is not None and one.tunnel.port == port and one.tunnel.vni >= min_id:
            found.append(_indexed(one, min_id))
    return found


def _namespaces(folders: Iterable[Path]) -> Iterator[str]:
    """Each namespace once: the folders may be one and the same."""
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        try:
            paths = sorted(folder.iterdir())
        except OSError:
            continue
        for path in paths:
            try:
                known = path.stat()
            except OSError:
                continue
            if (known.st_dev, known.st_ino) not in seen:
                seen.add((known.st_dev, known.st_ino))
                yield str(path)


def _standing(path: str, ours: Sequence[IPInterface]) -> Standing | None:
    descriptor = netns.open_netns(path)
    try:
        if netns.is_own(descriptor):
            return None
        with Netlink.open(descriptor) as pod:
            link = pod.link(vxlan.WORKER_DEVICE)
            if link is None or link.vxlan is None or link.vxlan.remote is None or link.vxlan.local is None:
                return None
            network = pod_network(spaces.look(pod))
    finally:
        os.close(descriptor)
    return Standing(
        netns=path,
        network=network,
        tunnel=_tunnel(link, link.vxlan, ours=ours),
        peer=link.vxlan.remote,
        whose=label.read(link.alias),
    )


def _tunnel(link: m.Link, made: m.Vxlan, *, ours: Sequence[IPInterface]) -> Tunnel:
    """The prefix length is the host interface's; for an address that the host has lost it does not matter any more."""
    assert made.local is not None
    worker = next((one for one in ours if one.ip == made.local), ip_interface(made.local))
    return Tunnel(kind=vxlan.KIND, index=0, vni=made.vni, port=made.port, worker=worker, mtu=link.mtu)


def _indexed(one: Standing, min_id: int) -> Standing:
    return replace(one, tunnel=replace(one.tunnel, index=one.tunnel.vni - min_id))
