"""The demo's worker node: an uplink, a CNI bridge, pod namespaces, a snapshot of everything that could be left over."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address
from pathlib import Path

from caa.errors import NetworkError

NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
BRIDGE = "cni0"
CLIENT = "client"
SUBNET = "10.88.0"
# The kernel shows the name a socket was bound under; ours are bound as `NAME.PID` or `.NAME.PID` and then renamed.
_COUNTED = re.compile(r"counter packets \d+ bytes \d+")
_RENAMED = re.compile(r"/\.?([^/]+)\.\d+$")


def run(*argv: str) -> str:
    """Run a program of the machine, return what it prints. Raises `NetworkError` with what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NetworkError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def in_netns(name: str, *argv: str) -> list[str]:
    """`argv` in a network namespace; `nsenter`, since `ip netns exec` would hide the cgroups."""
    return ["nsenter", f"--net={NETNS / name}", "--", *argv]


def prepare() -> None:
    """Give the fresh namespaces what a worker node has: own /run, loopback, uplink with default route, CNI bridge."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    NETNS.mkdir()
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "uplink")
    run("ip", "link", "set", "uplink", "up")
    run("ip", "address", "add", "10.200.0.1/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", "10.200.0.254")
    run("ip", "link", "add", BRIDGE, "address", "02:ca:0a:58:00:01", "type", "bridge", "forward_delay", "0")
    run("ip", "address", "add", f"{SUBNET}.1/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    attach(CLIENT, f"{SUBNET}.2")


def attach(name: str, address: str) -> None:
    """Make a network namespace with `eth0` on the bridge, as a CNI bridge plugin does.

    The hardware address follows from `address`: who had that address before leaves neighbour entries, which a plugin
    corrects with an announcement and which cost 8 s here.
    """
    host = f"veth-{name}"[:15]
    hwaddr = "02:cb:" + IPv4Address(address).packed.hex(":")
    run("ip", "netns", "add", name)
    run("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "address", hwaddr, "netns", name)
    run("ip", "link", "set", host, "master", BRIDGE, "up")
    for command in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/16", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", f"{SUBNET}.1"),
    ):
        run("ip", "-netns", name, *command)


def detach(name: str) -> None:
    """What the CNI plugin does at the end: the namespace and its link go."""
    run("ip", "netns", "delete", name)


def clear(instances: Path) -> None:
    """End whatever else runs in our PID namespace, then remove the cgroups of the pod VMs with a folder there."""
    if os.getpid() == 1:  # else it would be every process of the machine
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    end = time.monotonic() + 5
    groups = [group for instance in _names(instances) for group in groups_of(instance)]
    while sum(not _removed(group) for group in groups) and time.monotonic() < end:
        time.sleep(0.02)  # a killed process leaves its cgroup a moment later


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def _removed(group: Path) -> bool:
    """Remove a cgroup and all below it, deepest first; whether it is gone."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # a process is still in it, or it is gone already
            Path(folder).rmdir()
    return not group.exists()


@dataclass(frozen=True)
class Snapshot:
    """Everything a pod could leave behind, as sets of readable lines."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    addresses: frozenset[str]
    sockets: frozenset[str]
    nft_rules: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    records: frozenset[str]
    files: frozenset[str]

    def more_than(self, earlier: "Snapshot") -> dict[str, list[str]]:
        """What is here and was not there, by kind; empty when nothing is left."""
        kinds = [kind.name for kind in fields(self)]
        extra = {kind: sorted(getattr(self, kind) - getattr(earlier, kind)) for kind in kinds}
        return {kind: lines for kind, lines in extra.items() if lines}


@dataclass(frozen=True)
class Places:
    """Where to look beside the namespaces: folders, the node's store, and the cgroups that are ours.

    Cgroups have no namespace of their own here, so those of other programs on this machine must be left out.
    """

    folders: Sequence[Path]
    store: Path
    groups: Sequence[Path] = ()


def snapshot(places: Places) -> Snapshot:
    """Look at everything."""
    return Snapshot(
        processes=frozenset(_processes()),
        namespaces=frozenset(path.name for path in NETNS.iterdir()),
        links=frozenset(link["ifname"] for link in json.loads(run("ip", "-json", "link"))),
        addresses=frozenset(_addresses()),
        sockets=frozenset(_sockets()),
        nft_rules=frozenset(_COUNTED.sub("counter", run("nft", "list", "ruleset")).splitlines()),
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        cgroups=frozenset(str(path) for group in places.groups for path in _below(group) if path.is_dir()),
        records=frozenset(_records(places.store)),
        files=frozenset(str(path) for folder in places.folders for path in _below(folder)),
    )


def _processes() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended while we looked
            continue
        if words:  # the kernel's threads and zombies have none
            yield f"{entry.name} {words[:100].strip()}"


def _addresses() -> Iterator[str]:
    for link in json.loads(run("ip", "-json", "address")):
        for address in link["addr_info"]:
            if address["scope"] != "link":
                yield f"{link['ifname']} {address['local']}"


def _sockets() -> Iterator[str]:
    """Bound unix sockets by path, and listening TCP and UDP ports."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8:
            yield _RENAMED.sub(r"/\1", words[7])
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] in {"0A", "07"}:  # LISTEN; unconnected
                yield f"{table} {words[1]}"


def _below(top: Path) -> Iterator[Path]:
    """A path and all below it, nothing when it does not exist. What goes while we look is not there any more."""
    if top.exists():
        yield top
    for folder, folders, files in os.walk(top):  # which, unlike rglob, passes over a folder that vanishes
        yield from (Path(folder, name) for name in (*folders, *files))


def _records(store: Path) -> Iterator[str]:
    """The sandboxes that the node has on record."""
    if store.exists():
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            yield from (str(row[0]) for row in connection.execute("SELECT id FROM sandboxes"))


def groups_of(instance: str) -> list[Path]:
    """The top cgroups, one a hierarchy, that hold a pod VM of this name."""
    return [path.parent for depth in ("", "*/") for path in CGROUPS.glob(f"{depth}*/{instance}")]
