"""Two namespaces opened together: the one we are in and the pod's, and what already stands in the pod's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from caa.errors import InvalidInput
from caa.net import netns
from caa.net.inspect import Snapshot
from caa.net.netlink import Netlink
from caa.net.traffic import FILTER_PRIORITY
from caa.net.vxlan import Present


@dataclass(frozen=True, slots=True)
class Spaces:
    """Open sockets into both, and the pod namespace's descriptor."""

    host: Netlink
    pod: Netlink
    pod_descriptor: int


@contextmanager
def opened(path: str) -> Iterator[Spaces]:
    """Open the pod's namespace beside our own. Raises `InvalidInput` when it is not one, or is our own."""
    with netns.opened(path) as descriptor:
        if netns.is_own(descriptor):
            raise InvalidInput(f"{path!r} is the host's own network namespace; pods on the host network are not served")
        with Netlink.open() as host, Netlink.open(descriptor) as pod:
            yield Spaces(host, pod, descriptor)


def look(netlink: Netlink) -> Snapshot:
    """Read everything about a namespace that `caa.net.inspect` needs."""
    return Snapshot(
        links=tuple(netlink.links()),
        addresses=tuple(netlink.addresses()),
        routes=tuple(netlink.routes()),
        neighbours=tuple(netlink.neighbours()),
    )


def present(pod: Netlink) -> Present:
    """What stands in the pod's namespace: links, and the redirects at our priority."""
    links = pod.links()
    names = {link.index: link.name for link in links}
    found: dict[str, str] = {}
    for link in links:
        for entry in pod.filters(link.index):
            if entry.priority == FILTER_PRIORITY and entry.target is not None:
                found[link.name] = names.get(entry.target, "")
    return Present(links=tuple(links), redirects=found)


def exists(path: str) -> bool:
    """Whether `path` still is a network namespace: a pod's may be long gone when its tunnel is removed."""
    try:
        os.close(netns.open_netns(path))
    except InvalidInput:
        return False
    return True
