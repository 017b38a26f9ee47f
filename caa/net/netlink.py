"""The rtnetlink socket: the only file that talks to the kernel's network configuration.

A socket belongs to the namespace it was opened in and may be used from any thread afterwards. Calls block (a link's
deletion takes 20-30 ms), so they never run on an event loop. A failed request raises `KernelRefused`.
"""

import errno
import os
import socket
from collections.abc import Iterator
from types import TracebackType

from caa.errors import NetworkError
from caa.model.instance import IPAddress
from caa.net import codec, netns, traffic
from caa.net import messages as m

_ACK_TIMEOUT = 30.0  # seconds; the kernel answers while it handles the request, only its own lock can delay it
_DUMP_ATTEMPTS = 8  # a dump that was interrupted by a change is asked for again
_RTMGRP_LINK = 1
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11


class Netlink:
    """One rtnetlink socket. Not for two threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0

    @classmethod
    def open(cls, namespace: int | None = None) -> "Netlink":
        """Open in the caller's namespace, or in the one of the descriptor `namespace`."""
        return cls(_open_socket() if namespace is None else netns.inside(namespace, _open_socket))

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; twice is once."""
        self._socket.close()

    def change(self, kind: int, body: bytes, *, flags: int = 0, what: str = "") -> None:
        """Send one request and wait for its acknowledgement. `what` completes "the kernel refused to ..."."""
        sequence = self._send(kind, body, flags=flags | codec.NLM_F_ACK)
        for message in self._receive(sequence):
            if message.kind == codec.NLMSG_ERROR:
                return _check(message, what)
        raise NetworkError("the kernel did not acknowledge a netlink request")

    def ask(self, kind: int, body: bytes) -> bytes:
        """Send a request that is answered by one message, and return its body."""
        sequence = self._send(kind, body)
        message = next(self._receive(sequence))
        if message.kind == codec.NLMSG_ERROR:
            _check(message, "")
            raise NetworkError("the kernel answered a netlink question with nothing")
        return message.body

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object of a kind, from one consistent dump."""
        for _ in range(_DUMP_ATTEMPTS):
            found = self._dump_once(kind, body)
            if found is not None:
                return found
        raise NetworkError("the namespace changes too fast to be read")

    def _dump_once(self, kind: int, body: bytes) -> list[bytes] | None:
        sequence = self._send(kind, body, flags=codec.NLM_F_DUMP)
        found: list[bytes] = []
        torn = False
        for message in self._receive(sequence):
            torn = torn or bool(message.flags & codec.NLM_F_DUMP_INTR)
            if message.kind == codec.NLMSG_ERROR:
                _check(message, "")
            if message.kind in (codec.NLMSG_ERROR, codec.NLMSG_DONE):
                break
            found.append(message.body)
        return None if torn else found

    def _send(self, kind: int, body: bytes, *, flags: int = 0) -> int:
        self._sequence += 1
        data = codec.message(kind, flags | codec.NLM_F_REQUEST, sequence=self._sequence, body=body)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NetworkError(f"cannot send a netlink request: {error.strerror}") from error
        return self._sequence

    def _receive(self, sequence: int) -> Iterator[codec.Message]:
        """Messages that answer `sequence`; leftovers of an earlier, abandoned answer are dropped."""
        while True:
            try:
                data, _, flags, _ = self._socket.recvmsg(1 << 17)
            except OSError as error:
                raise NetworkError(f"no answer from netlink: {error.strerror or error}") from error
            if flags & socket.MSG_TRUNC:
                raise NetworkError("a netlink answer is longer than 128 KiB")
            yield from (found for found in codec.messages(data) if found.sequence == sequence)

    # --- questions ---

    def link(self, name: str) -> m.Link | None:
        """The link of that name, None when absent."""
        try:
            return m.read_link(self.ask(m.RTM_GETLINK, m.link_by_name(name)))
        except codec.KernelRefused as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self) -> list[m.Link]:
        """All links."""
        return [m.read_link(body) for body in self.dump(m.RTM_GETLINK, m.link_index(0))]

    def addresses(self) -> list[m.Address]:
        """All IPv4 and IPv6 addresses."""
        return [m.read_address(body) for body in self.dump(m.RTM_GETADDR, bytes(8))]

    def routes(self) -> list[m.RouteRow]:
        """All IPv4 and IPv6 routes of all tables."""
        rows = (m.read_route(body) for body in self.dump(m.RTM_GETROUTE, bytes(12)))
        return [row for row in rows if row is not None]

    def neighbours(self) -> list[m.NeighbourRow]:
        """All neighbour entries with a hardware address."""
        rows = (m.read_neighbour(body) for body in self.dump(m.RTM_GETNEIGH, bytes(12)))
        return [row for row in rows if row is not None]

    def qdiscs(self) -> list[traffic.Qdisc]:
        """All queueing disciplines."""
        return [traffic.read_qdisc(body) for body in self.dump(traffic.RTM_GETQDISC, bytes(20))]

    def filters(self, index: int) -> list[traffic.Filter]:
        """The filters of incoming packets of one link; none when the link is gone."""
        try:
            rows = [traffic.read_filter(body) for body in self.dump(traffic.RTM_GETTFILTER, traffic.redirects(index))]
        except codec.KernelRefused as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
                return []
            raise
        return [row for row in rows if row is not None]

    def way_to(self, address: IPAddress) -> m.RouteRow | None:
        """The route the kernel would take to `address`, None when there is none."""
        try:
            return m.read_route(self.ask(m.RTM_GETROUTE, m.route_lookup(address)))
        except codec.KernelRefused as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES):
                return None
            raise


def _open_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        raise NetworkError(f"cannot open a netlink socket: {os.strerror(error.errno or 0)}") from error
    sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    sock.settimeout(_ACK_TIMEOUT)
    sock.bind((0, 0))
    return sock


def link_news() -> socket.socket:
    """A socket, not blocking, that hears of every change of a link in the caller's namespace. Raises `NetworkError`.

    Its messages are for `codec.messages`. ENOBUFS from a read means that some were missed.
    """
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        sock.setblocking(False)
        sock.bind((0, _RTMGRP_LINK))
    except OSError as error:
        raise NetworkError(f"cannot listen for changes of links: {os.strerror(error.errno or 0)}") from error
    return sock


def _check(message: codec.Message, what: str) -> None:
    refused = codec.verdict(message)
    if refused is not None:
        raise codec.KernelRefused(refused.errno, text=refused.text, what=what)
