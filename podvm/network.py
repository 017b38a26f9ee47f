"""The pod VM's half of the pod network: the `podns` namespace and the pod's interface in it.

Runs once before the forwarder listens and again after each of its restarts; a second run changes nothing.
The plans are `caa.net.vxlan`'s; this module only waits for the VM's own network and applies them.
"""

import logging
from collections.abc import Callable

from caa.errors import DeadlineExceeded
from caa.model.instance import IPAddress
from caa.model.network import PodNetwork, Tunnel
from caa.net import apply, inspect, netns, nft, spaces, vxlan
from caa.net.netlink import Netlink
from caa.net.ops import ChangeLink, Side
from podvm.clock import Clock
from podvm.rewrites import POD_NAMESPACE

_LIMIT = 180.0  # seconds for the primary interface to get its address (`reference/podvm.md` 1.6)
_PAUSE = 0.05  # seconds between two looks, so that a slow DHCP costs the pod's start at most this much

_log = logging.getLogger(__name__)


def ensure_netns(path: str = POD_NAMESPACE) -> None:
    """Make the pod's network namespace if it is not there, with its loopback up."""
    netns.ensure_netns(path)
    with spaces.opened(path) as both:
        apply.perform(ChangeLink(side=Side.POD, device="lo", up=True), both)


def setup(pod_netns: str, network: PodNetwork, *, tunnel: Tunnel, clock: Clock | None = None) -> None:
    """Make the pod's interface in `pod_netns`, which has to exist. Twice is once.

    Waits up to 3 minutes for a way to the worker. Raises `DeadlineExceeded` when there is none, `NetworkError` when
    the kernel refuses and `InvalidInput` when the path is no network namespace; a failure leaves no interface.
    """
    with spaces.opened(pod_netns) as both:
        underlay = wait_for_underlay(tunnel.worker.ip, lambda to: way(both.host, to), clock=clock or Clock())
        plan = vxlan.guest_plan(network, tunnel, underlay=underlay, present=spaces.present(both.pod))
        apply.apply(plan, both)
    nft.install(tunnel.port)
    _log.info("pod network: %s over %s to %s", network.interface, underlay.interface, tunnel.worker.ip)


def teardown(pod_netns: str, network: PodNetwork, *, tunnel: Tunnel) -> None:
    """Remove the pod's interface and the firewall rules; absent is success. The namespace stays."""
    if spaces.exists(pod_netns):
        with spaces.opened(pod_netns) as both:
            apply.apply(vxlan.guest_removal(network, tunnel, present=spaces.present(both.pod)), both)
    nft.remove(tunnel.port)


def way(host: Netlink, to: IPAddress) -> inspect.Underlay | None:
    """The interface and address that lead to `to` now, None while there are none."""
    found = host.way_to(to)
    return None if found is None else inspect.way_underlay(spaces.look(host), found)


def wait_for_underlay(
    worker: IPAddress, look: Callable[[IPAddress], inspect.Underlay | None], *, clock: Clock
) -> inspect.Underlay:
    """Look until there is a way to the worker; raises `DeadlineExceeded` after 3 minutes."""
    end = clock.now() + _LIMIT
    while (found := look(worker)) is None:
        if clock.now() >= end:
            raise DeadlineExceeded(f"no interface of this pod VM reached the worker {worker} within {_LIMIT:.0f} s")
        clock.sleep(_PAUSE)
    return found
