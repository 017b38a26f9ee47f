"""The hypervisor under every fake cloud: an instance boots as a `local` pod VM, with its metadata service in it.

A fake tells its `Host` that an instance begins, is told to stop, or ends; the host tells the fake by `halted` that one
went down by itself. Without `--boot` the host is `Nowhere`, and instances are words in a table.

The metadata service answers at 169.254.169.254 inside the pod VM's network namespace, but is no process there: a
socket keeps the namespace that it was made in, so this process serves all of them, as a hypervisor does.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from caa.errors import CaaError, ConfigError
from caa.model.ids import SandboxId
from caa.model.instance import Owner
from caa.net import codec, netns
from caa.net import messages as m
from caa.net.netlink import Netlink
from podvm.clouds.metadata import LINK_LOCAL
from providers.local import client, translate
from providers.local.cgroups import Cgroups
from tests.fakes.metadata.clouds import Aws, Azure, Gcp
from tests.fakes.metadata.server import MetadataServer, Rules

_BRIDGE = "caa-cloud0"
_OWNER = Owner(cluster="fake", node="cloud")
_LOOK = 0.2  # seconds between two looks whether a machine still runs
_END = 15.0  # seconds for all machines to go at the end


class Order(StrEnum):
    """What happens to an instance that is there; `END` is for good."""

    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What an instance boots with: its address, its user data, and the seconds until it is switched on."""

    address: IPv4Address
    user_data: bytes | None = field(repr=False)
    after: float


class Host(Protocol):
    """Where a fake cloud's instances run. No call blocks or fails; what is not known is passed over."""

    halted: Callable[[str], None]

    def begin(self, name: str, guest: Guest) -> None:
        """A new instance."""

    def order(self, name: str, order: Order) -> None:
        """Stop it, or whatever else."""

    def console(self, name: str) -> bytes:
        """What it has printed since it began, and why it could not be booted."""


class Nowhere:
    """`Host` without machines."""

    def __init__(self) -> None:
        self.halted: Callable[[str], None] = lambda name: None

    def begin(self, name: str, guest: Guest) -> None:
        """Nothing boots."""

    def order(self, name: str, order: Order) -> None:
        """Nothing runs."""

    def console(self, name: str) -> bytes:
        """Nothing is printed."""
        return b""


@dataclass(frozen=True, slots=True)
class Ground:
    """A cloud as its guests find it: the network, what SMBIOS says, the rules of the metadata service."""

    subnet: IPv4Network
    smbios: Mapping[str, str]
    rules: Callable[[bytes | None], Rules]


GROUNDS = {
    "aws": Ground(IPv4Network("10.0.0.0/16"), {"sys_vendor": "Amazon EC2"}, Aws),
    "azure": Ground(
        IPv4Network("10.0.0.0/16"),
        {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
        Azure,
    ),
    "gcp": Ground(
        IPv4Network("10.1.0.0/16"),
        {"sys_vendor": "Google", "product_name": "Google Compute Engine"},
        lambda value: Gcp(value, encode=False),  # an attribute is served as it was set
    ),
}


@dataclass
class _Life:
    """One instance, which outlives its machine when it is stopped."""

    guest: Guest
    orders: SimpleQueue[Order] = field(default_factory=SimpleQueue)
    asked: float = field(default_factory=time.monotonic)
    printed: bytes = b""  # by machines that are no more
    runs: bool = False


class Machines:
    """`Host` on this kernel, in this process's network namespace. Needs root; close it."""

    def __init__(self, folder: Path, ground: Ground) -> None:
        """Raises `ConfigError` where no machine can be made. `folder` is as `LOCAL_STATE_DIR` of the driver `local`."""
        hierarchies = translate.hierarchies(Path("/proc/self/mountinfo").read_text())
        firmware = folder / "firmware"
        self._site = translate.Site(
            state_dir=folder,
            subnet=ground.subnet,
            bridge=_BRIDGE,
            agent_command=(),
            python=sys.executable,
            boot_flags=(f"-machine={firmware}",),
        )
        if problems := [f"{what}: {detail}; {remedy}" for what, detail, remedy in _problems(self._site, hierarchies)]:
            raise ConfigError("instances cannot boot here: " + "; ".join(problems))
        _write_smbios(firmware, ground.smbios)
        self._ground = ground
        self._cgroups = Cgroups(hierarchies, self._site.cgroup_parent)
        self._known = client.LocalMachines(self._site, self._cgroups)
        for left in self._known.all():  # by one that was killed
            self._known.remove(left.name)
        self._lives: dict[str, _Life] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.halted: Callable[[str], None] = lambda name: None

    def begin(self, name: str, guest: Guest) -> None:
        """Boot it when its time has come, as `name`."""
        life = _Life(guest)
        thread = threading.Thread(target=self._live, args=(name, life), name=name, daemon=True)
        with self._lock:
            self._lives[name] = life
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def order(self, name: str, order: Order) -> None:
        """Carried out by the instance's thread, in the order in which they come."""
        with self._lock:
            life = self._lives.pop(name, None) if order is Order.END else self._lives.get(name)
        if life is not None:
            life.orders.put(order)

    def console(self, name: str) -> bytes:
        """Of all its boots, without what was printed before the last MiB of each."""
        with self._lock:
            life = self._lives.get(name)
            if life is None:
                return b""
            return life.printed + (self._known.console(name) if life.runs else b"")

    def close(self) -> None:
        """End every machine and wait until all are gone."""
        with self._lock:
            names, threads = list(self._lives), list(self._threads)
        for name in names:
            self.order(name, Order.END)
        end = time.monotonic() + _END
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _live(self, name: str, life: _Life) -> None:
        """On when its time has come, and when it is started again; a halt is told and leaves it off."""
        order = _next(life.orders, life.guest.after) or Order.START
        while order is not Order.END:
            if order is not Order.START:
                order = life.orders.get()
                continue
            ended = self._on(name, life)
            if ended is None:
                self.halted(name)
            order = ended or life.orders.get()

    def _on(self, name: str, life: _Life) -> Order | None:
        """One machine, and one more after each reboot; the order that ended it, or None when it did so by itself."""
        while True:
            with ExitStack() as metadata:
                life.runs = True
                self._boot(name, life, metadata)
                order = self._watch(name, life.orders)
                with self._lock:
                    life.printed, life.runs = life.printed + self._known.console(name), False
                self._known.remove(name)
            if order is not Order.REBOOT:
                return order

    def _boot(self, name: str, life: _Life, metadata: ExitStack) -> None:
        if not translate.valid_name(name):
            life.printed += b"hypervisor: an instance of this name cannot be booted\n"
            return
        if life.guest.address not in self._site.subnet:
            life.printed += f"hypervisor: {life.guest.address} is not in {self._site.subnet}\n".encode()
            return

        def serve(_: str, pid: int) -> None:
            with (self._site.state_dir / "vms" / name / "console.log").open("a") as console:
                console.write(_line(life.asked, "asked for") + _line(switched_on, "switched on"))
            metadata.enter_context(_metadata(pid, self._ground.rules(life.guest.user_data)))

        switched_on = time.monotonic()
        machines = client.LocalMachines(self._site, self._cgroups, cabled=serve)
        record = translate.Record(
            name=name, sandbox=SandboxId(name), owner=_OWNER, created_at=time.time(), address=life.guest.address
        )
        try:
            machines.launch(record, b"")
        except (CaaError, OSError) as error:
            life.printed += f"hypervisor: the instance cannot be booted: {error}\n".encode()
            machines.remove(name)

    def _watch(self, name: str, orders: SimpleQueue[Order]) -> Order | None:
        """The order that comes, or None when the machine has ended by itself."""
        while self._known.runs(name):
            if (order := _next(orders, _LOOK)) not in (None, Order.START):
                return order
        return None


def _line(at: float, text: str) -> str:
    """As a guest writes it."""
    return f"[{at:15.6f}] hypervisor: {text}\n"


def _next(orders: SimpleQueue[Order], seconds: float) -> Order | None:
    """The next order, None when none comes within the time."""
    try:
        return orders.get(timeout=seconds)
    except Empty:
        return None


def _problems(site: translate.Site, hierarchies: tuple[translate.Hierarchy, ...]) -> list[tuple[str, str, str]]:
    site.state_dir.mkdir(parents=True, exist_ok=True)
    return list(client.problems(site, hierarchies))


def _write_smbios(root: Path, strings: Mapping[str, str]) -> None:
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in strings.items():
        (folder / name).write_text(f"{value}\n")


def _metadata(pid: int, rules: Rules) -> MetadataServer:
    """The service in the network namespace of a process, listening, on an address that only this guest has."""
    with netns.opened(f"/proc/{pid}/ns/net") as guest:
        with Netlink.open(guest) as inside:
            link = inside.link("lo")
            assert link is not None
            inside.change(m.RTM_NEWLINK, m.link_change(link.index, up=True), what="switch on lo")
            body = m.address(link.index, IPv4Interface(f"{LINK_LOCAL}/32"))
            flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
            inside.change(m.RTM_NEWADDR, body, flags=flags, what="place the metadata service")
        return netns.inside(guest, lambda: MetadataServer(rules, LINK_LOCAL, port=80, pause=0.1))
