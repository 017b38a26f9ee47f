"""What an operator may set for `local`. Rows only; nothing is read here."""

import shlex
from ipaddress import IPv4Network
from pathlib import Path

from caa.config.kinds import BOOL, PATH, STRING, matching
from caa.config.setting import AnySetting, Kind, Setting


def _parse_subnet(text: str) -> IPv4Network:
    network = IPv4Network(text)
    if not 16 <= network.prefixlen <= 28:
        raise ValueError("too large or too small")
    return network


def _parse_command(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))


_SUBNET: Kind[IPv4Network] = Kind(
    name="network", allowed="an IPv4 network from /16 to /28, such as 10.199.0.0/24", parse=_parse_subnet, show=str
)
_COMMAND: Kind[tuple[str, ...]] = Kind(
    name="command", allowed="a command with its arguments, quoted as in a shell", parse=_parse_command, show=shlex.join
)
_DEVICE = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "an interface name: 1 to 15 letters, digits, '_', '.' or '-'")

STATE_DIR = Setting(
    name="local_state_dir",
    kind=PATH,
    default=Path("/var/lib/caa/local"),
    help="where the pod VMs of the local provider are recorded, with their console logs",
    env="LOCAL_STATE_DIR",
    flag="local-state-dir",
)
SUBNET = Setting(
    name="local_subnet",
    kind=_SUBNET,
    default=IPv4Network("10.199.0.0/24"),
    help="the private network of the local pod VMs; its first address is the bridge's",
    env="LOCAL_SUBNET",
    flag="local-subnet",
)
BRIDGE = Setting(
    name="local_bridge",
    kind=_DEVICE,
    default="caa-local0",
    help="the bridge between the node and its local pod VMs: made with the first one, removed with the last",
    env="LOCAL_BRIDGE",
    flag="local-bridge",
)
AGENT_COMMAND = Setting(
    name="local_agent_command",
    kind=_COMMAND,
    default=(),
    help="the agent that a local pod VM starts; empty for the stand-in agent, which runs containers with runc",
    env="LOCAL_AGENT_COMMAND",
    flag="local-agent-command",
)
CLUSTER = Setting(
    name="local_cluster",
    kind=STRING,
    default="",
    help="set by the kubelet in every pod: the local provider refuses to run in a cluster",
    env="KUBERNETES_SERVICE_HOST",
)
ALLOW_INSECURE = Setting(
    name="local_allow_insecure",
    kind=BOOL,
    default=False,
    help="run the local provider in a cluster although its pod VMs are processes on the node, without isolation",
    env="CAA_ALLOW_INSECURE_LOCAL",
)

SETTINGS: tuple[AnySetting, ...] = (
    STATE_DIR,
    SUBNET,
    BRIDGE,
    AGENT_COMMAND,
    CLUSTER,
    ALLOW_INSECURE,
)
