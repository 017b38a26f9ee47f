"""Pure: settings and launch requests into names, command lines and records, and records into instances."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from caa.errors import InvalidRequest, ProviderError
from caa.model.ids import InstanceId, SandboxId
from caa.provider.contract import Instance, LaunchRequest, Owner

# Outside `/run/kata-containers`, which the agent empties at CreateSandbox: a restarted forwarder dials it again.
_AGENT_SOCKET = "/run/kata-agent/agent.sock"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NOT_A_CONTROLLER = frozenset({"rw", "ro", "xattr", "clone_children", "nsdelegate", "memory_recursiveprot"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where this node's local pod VMs live: the settings, the node's interpreter, more flags for the guest's boot."""

    state_dir: Path
    subnet: IPv4Network
    bridge: str
    agent_command: tuple[str, ...]
    python: str
    boot_flags: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """Eight hex digits that tell this state directory from another one on the same kernel."""
        return _digest(str(self.state_dir))

    @property
    def cgroup_parent(self) -> str:
        """The folder that holds our cgroups, in each hierarchy."""
        return f"caa-local-{self.mark}"

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's address: the first of the subnet."""
        return IPv4Interface((self.subnet.network_address + 1, self.subnet.prefixlen))

    def interface(self, address: IPv4Address) -> IPv4Interface:
        """A pod VM's address with the subnet's prefix length."""
        return IPv4Interface((address, self.subnet.prefixlen))

    def guest_addresses(self) -> Iterable[IPv4Address]:
        """Every address a pod VM may have, the lowest first."""
        return (host for host in self.subnet.hosts() if host != self.gateway.ip)

    def link_name(self, name: str) -> str:
        """The node's end of a pod VM's cable; at most 15 characters."""
        return f"caal{_digest(f'{self.state_dir}/{name}')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept on disk about one pod VM. `address` is None until the machine is about to be made."""

    name: str
    sandbox: SandboxId
    owner: Owner
    created_at: float
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy: where, `cgroup` or `cgroup2`, and the mount options that make it again."""

    point: str
    kind: str
    options: str


def valid_name(name: str) -> bool:
    """Whether a text may be a pod VM's name: it becomes a folder and a host name."""
    return _NAME.fullmatch(name) is not None


def new_record(request: LaunchRequest, now: float) -> Record:
    """The record of a pod VM that is about to be made. Raises `InvalidRequest` when its name cannot be a host name."""
    if not valid_name(request.name):
        raise InvalidRequest(
            f"instance name {request.name[:80]!r} is not valid: 1 to 63 lower-case letters, digits and '-', "
            "no '-' at the ends"
        )
    return Record(name=request.name, sandbox=request.sandbox, owner=request.owner, created_at=now)


def instance(record: Record) -> Instance:
    """The instance as the node sees it; a half-made one has no address yet."""
    return Instance(
        id=InstanceId(record.name),
        name=record.name,
        addresses=(record.address,) if record.address else (),
        sandbox=record.sandbox,
        created_at=record.created_at,
    )


def to_json(record: Record) -> str:
    """The record as the text of `instance.json`. It holds nothing secret."""
    return json.dumps(
        {
            "name": record.name,
            "sandbox": record.sandbox,
            "cluster": record.owner.cluster,
            "node": record.owner.node,
            "created_at": record.created_at,
            "address": str(record.address or ""),
        },
        indent=1,
    )


def from_json(text: str) -> Record:
    """The inverse of `to_json`. Raises `ProviderError` when the text is not such a record."""
    try:
        fields = json.loads(text)
        return Record(
            name=str(fields["name"]),
            sandbox=SandboxId(fields["sandbox"]),
            owner=Owner(cluster=fields["cluster"], node=fields["node"]),
            created_at=float(fields["created_at"]),
            address=IPv4Address(fields["address"]) if fields["address"] else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProviderError(f"not the record of a local pod VM: {type(error).__name__} {error}") from error


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The cgroup hierarchies among the lines of `/proc/self/mountinfo` (`proc(5)`).

    On a hybrid system these are several v1 ones and `unified`; with cgroup v2 alone it is one at `/sys/fs/cgroup`.
    Mounts elsewhere (other people's containers) do not count.
    """
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        place, _, super_block = line.partition(" - ")
        fields, kind_source_options = place.split(), super_block.split()
        if len(fields) < 5 or len(kind_source_options) < 3:
            continue
        point, kind = fields[4], kind_source_options[0]
        if kind in ("cgroup", "cgroup2") and re.fullmatch(r"/sys/fs/cgroup(/[^/]+)?", point):
            found[point] = Hierarchy(point, kind, _mount_options(kind, kind_source_options[2]))
    return tuple(found[point] for point in sorted(found))


def launch_command(
    site: Site, record: Record, *, cgroups: Sequence[tuple[Hierarchy, str]], descriptors: tuple[int, int], size: int
) -> list[str]:
    """The command line of `machine.py` for a user data document of `size` bytes; nothing in it is secret."""
    report, drive = descriptors
    script = str(Path(__file__).with_name("machine.py"))
    mounts = [f"{one.point}|{one.kind}|{one.options}|{ours}" for one, ours in cgroups]
    python = [site.python, "-I"]
    agent: tuple[str, ...] = site.agent_command
    place: tuple[str, ...] = ()
    if not agent:
        agent = (*python, "-m", "caa.testing.agent", "--server-addr", f"unix://{_AGENT_SOCKET}")
        place = (f"-kata-agent-socket={_AGENT_SOCKET}",)
    machine = [*python, "-S", script, str(report), str(drive), record.name, str(size), *mounts]
    return [*machine, "--", *python, "-m", "podvm", "boot", *place, *site.boot_flags, "--", *agent]


def _mount_options(kind: str, options: str) -> str:
    """The controllers a v1 hierarchy was mounted with; a named one is mounted with `none,name=...`."""
    if kind == "cgroup2":
        return ""
    words = [word for word in options.split(",") if word not in _NOT_A_CONTROLLER and "release_agent" not in word]
    return ",".join(["none", *words] if words[0].startswith("name=") else words) if words else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
