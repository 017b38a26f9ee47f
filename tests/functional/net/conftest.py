"""A small world of network namespaces, held open by processes and never mounted anywhere.

client --- cni0 (bridge) --- pod          the pod's network as a CNI plugin makes it
             worker
               | eth0 192.168.77.1
               | ens1 192.168.77.2
               vm       guest             the pod VM, and `podns` in it
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from caa.net import netns

T = TypeVar("T")


@dataclass
class Box:
    """One namespace and the process that holds it."""

    process: subprocess.Popen[bytes]

    @property
    def path(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    def run(self, *command: str, text: str | None = None, check: bool = True) -> str:
        """Run a program inside; its output."""
        line = ["nsenter", f"--net={self.path}", *command]
        done = subprocess.run(line, input=text, capture_output=True, text=True, timeout=30, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ip(self, lines: str) -> None:
        """Run a batch of `ip` commands inside."""
        self.run("ip", "-batch", "-", text=lines)

    def pings(self, to: str, *options: str) -> bool:
        """Whether one ping of at most three is answered."""
        tries = (self.run("ping", "-c1", "-W1", *options, to, check=False) for _ in range(3))
        return any(" 0% packet loss" in output for output in tries)

    def inside(self, act: Callable[[], T]) -> T:
        """Call a function inside; threads and programs it starts are inside too."""
        with netns.opened(self.path) as descriptor:
            return netns.inside(descriptor, act)

    def run_async(self, act: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in an event loop of its own, inside."""

        async def main() -> T:
            return await act()

        return self.inside(lambda: asyncio.run(main()))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def make_box() -> Box:
    box = Box(subprocess.Popen(["unshare", "--net", "sleep", "600"]))
    own = Path("/proc/self/ns/net").stat().st_ino
    deadline = time.monotonic() + 10
    while Path(box.path).stat().st_ino == own and time.monotonic() < deadline:
        time.sleep(0.002)
    assert Path(box.path).stat().st_ino != own
    box.ip("link set lo up\n")
    return box


@dataclass
class World:
    worker: Box
    vm: Box
    pod: Box
    client: Box
    guest: Box


def wire(world: World) -> None:
    """The worker's and the VM's network, and the bridge with the pod and the client on it."""
    vm, pod, client = (box.process.pid for box in (world.vm, world.pod, world.client))
    world.worker.ip(
        f"""link add eth0 type veth peer name ens1 netns {vm}
        link set eth0 up
        addr add 192.168.77.1/24 dev eth0
        addr add fd77::1/64 dev eth0 nodad
        route add default via 192.168.77.254
        link add cni0 type bridge forward_delay 0 mcast_snooping 0
        link set cni0 up
        addr add 10.88.0.1/24 dev cni0
        addr add fd88::1/64 dev cni0 nodad
        link add vethpod mtu 1500 type veth peer name eth0 netns {pod}
        link add vethcli type veth peer name eth0 netns {client}
        link set vethpod master cni0 up
        link set vethcli master cni0 up
        """
    )
    world.vm.ip("link set ens1 up\naddr add 192.168.77.2/24 dev ens1\naddr add fd77::2/64 dev ens1 nodad\n")
    for box, number in ((world.pod, 10), (world.client, 20)):
        box.ip(
            f"""link set eth0 up
            addr add 10.88.0.{number}/24 dev eth0
            addr add fd88::{number}/64 dev eth0 nodad
            route add default via 10.88.0.1
            route add default via fd88::1
            """
        )


@pytest.fixture
def world() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with ExitStack() as stack:
        boxes = []
        for _ in range(5):
            boxes.append(make_box())
            stack.callback(boxes[-1].end)
        made = World(*boxes)
        wire(made)
        yield made


@pytest.fixture
def box() -> Iterator[Box]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = make_box()
    yield made
    made.end()
