"""The worker's side of pod networking: implements `caa.sandbox.ports.PodNetworking` with VXLAN.

All kernel work runs in one thread of its own: it blocks (a link's deletion takes 20-30 ms), and one thread keeps
a connect and a later disconnect of the same pod in order even when the caller was cancelled in between.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from caa.errors import ConfigError, NetworkError
from caa.model.instance import IPAddress
from caa.model.network import PodNetwork, Standing, Tunnel, Whose
from caa.net import apply, codec, label, netlink, nft, spaces, standing, vxlan
from caa.net.codec import KernelRefused
from caa.net.flaps import Flaps
from caa.net.inspect import Underlay, check_held, host_underlay, pod_network
from caa.net.netlink import Netlink

T = TypeVar("T")


class VxlanNetworking:
    """Pod networks over VXLAN. `start` first, `close` at the end; tunnels outlive both.

    `host_interface` is "" for the interface of the default route. Ids count from `vxlan_min_id`. `folders` are where
    pods' namespaces are.
    """

    def __init__(
        self,
        *,
        host_interface: str = "",
        vxlan_port: int = vxlan.PORT,
        vxlan_min_id: int = vxlan.MIN_ID,
        folders: Sequence[Path] = standing.FOLDERS,
    ) -> None:
        if not 0 < vxlan_port < 1 << 16:
            raise ConfigError(f"VXLAN_PORT {vxlan_port} is not between 1 and 65535")
        if not 0 < vxlan_min_id <= vxlan.MAX_ID:
            raise ConfigError(f"--vxlan-min-id {vxlan_min_id} is not between 1 and {vxlan.MAX_ID}")
        self._host_interface = host_interface
        self._port = vxlan_port
        self._min_id = vxlan_min_id
        self._folders = tuple(folders)
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="net")

    async def start(self) -> None:
        """Keep the tunnels' packets out of connection tracking; a node without `nft` gets a warning."""
        await self._do(lambda: nft.install(self._port))

    async def close(self) -> None:
        """Remove the firewall rules and end the thread; pods keep their tunnels. Twice is once."""
        if self._closed:
            return
        self._closed = True
        await self._do(lambda: nft.remove(self._port))
        self._thread.shutdown(wait=False)

    async def inspect(self, netns: str) -> PodNetwork:
        """Read the pod's namespace (a path); `InvalidInput` when it is not a network namespace or has no address."""
        return await self._do(lambda: _inspect(netns))

    async def worker_tunnel(self, index: int, network: PodNetwork) -> Tunnel:
        """The tunnel to build. Builds nothing. Raises `ConfigError` when the host interface cannot be told."""
        underlay = await self._do(self._underlay)
        return vxlan.tunnel(index, network, underlay=underlay, port=self._port, min_id=self._min_id)

    async def connect(self, netns: str, *, network: PodNetwork, tunnel: Tunnel, peer: IPAddress, whose: Whose) -> None:
        """Build the worker's half towards the pod VM `peer`. Twice is once; a failure leaves nothing."""
        vxlan.check_peer(tunnel, peer)
        alias = label.label(whose)
        await self._do(lambda: self._connect(netns, network, tunnel=tunnel, peer=peer, alias=alias))

    async def disconnect(self, netns: str, tunnel: Tunnel) -> None:
        """Undo `connect`; the namespace may be long gone (its end takes the tunnel with it)."""
        await self._do(lambda: _disconnect(netns, tunnel))

    async def standing(self) -> Sequence[Standing]:
        """Every worker's half that is there, found by looking into the namespaces of `folders`."""
        return await self._do(lambda: standing.find(self._folders, port=self._port, min_id=self._min_id))

    async def flaps(self) -> AsyncIterator[str]:
        """The name of the host interface, each time that it comes back after it was down or gone."""
        with netlink.link_news() as sock:
            following: Flaps | None = None
            while True:
                following = following or await self._followed()
                news = await _news(sock)
                if following is not None and (news is None or following.heard(codec.messages(news))):
                    yield following.name

    async def _followed(self) -> Flaps | None:
        try:
            return Flaps((await self._do(self._underlay)).interface)
        except ConfigError:  # there is none yet; a pod's start says what is wrong, and the next news is another chance
            return None

    def _underlay(self) -> Underlay:
        with Netlink.open() as host:
            return host_underlay(spaces.look(host), self._host_interface)

    def _connect(self, netns: str, network: PodNetwork, *, tunnel: Tunnel, peer: IPAddress, alias: str) -> None:
        with spaces.opened(netns) as both:
            check_held(both.host.addresses(), tunnel.worker.ip)
            present = spaces.present(both.pod)
            plan = vxlan.worker_plan(network, tunnel, peer=peer, present=present, label=alias)
            try:
                apply.apply(plan, both)
            except KernelRefused as error:
                raise _explained(error, tunnel) from error

    async def _do(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


async def _news(sock: socket.socket) -> bytes | None:
    """The next change of a link; None when some were missed."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, 1 << 17)
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            return None
        raise NetworkError(f"no news of links any more: {error.strerror}") from error


def _inspect(netns: str) -> PodNetwork:
    with spaces.opened(netns) as both:
        return pod_network(spaces.look(both.pod))


def _disconnect(netns: str, tunnel: Tunnel) -> None:
    if not spaces.exists(netns):
        return
    with spaces.opened(netns) as both:
        apply.apply(vxlan.worker_removal(tunnel, spaces.present(both.pod)), both)


def _explained(error: KernelRefused, tunnel: Tunnel) -> NetworkError:
    if error.errno != errno.EEXIST:
        return error
    return NetworkError(
        f"{error}. VXLAN id {tunnel.vni} on port {tunnel.port} is taken on this node, "
        "perhaps by pods of another adaptor: choose another --vxlan-min-id or VXLAN_PORT"
    )
