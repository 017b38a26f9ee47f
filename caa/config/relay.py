"""Rows of the data plane, `caa relay`; the control plane shares them, both must agree."""

from pathlib import Path

from caa.config.kinds import OPTIONAL_PATH, PATH, duration
from caa.config.setting import AnySetting, Setting

SOCKET: Setting[Path] = Setting(
    name="socket",
    env="REMOTE_HYPERVISOR_ENDPOINT",
    flag="socket",
    kind=PATH,
    default=Path("/run/peerpod/hypervisor.sock"),
    help="Unix socket on which the Kata shims reach the hypervisor service.",
)
PODS_DIR: Setting[Path] = Setting(
    name="pods_dir",
    env="PODS_DIR",
    flag="pods-dir",
    kind=PATH,
    default=Path("/run/peerpod/pods"),
    help="Folder with one folder a sandbox, in which the shim finds the agent's socket.",
)
RUN_DIR: Setting[Path] = Setting(
    name="run_dir",
    env="CAA_RUN_DIR",
    flag="run-dir",
    kind=PATH,
    default=Path("/run/peerpod"),
    help="Folder of the sockets between relay and control plane; emptied by a reboot.",
)
STATE_DIR: Setting[Path] = Setting(
    name="state_dir",
    env="CAA_STATE_DIR",
    flag="state-dir",
    kind=PATH,
    default=Path("/var/lib/cloud-api-adaptor"),
    help="Folder of what must survive a restart: sandboxes, the node's CA, recorded stops. A hostPath in a cluster.",
)
CONTROL_PLANE_GRACE: Setting[float] = Setting(
    name="control_plane_grace",
    env="CONTROL_PLANE_GRACE",
    flag="control-plane-grace",
    kind=duration(1.0),
    default=600.0,
    help="How long the relay keeps a call without a deadline while the control plane is away.",
)
PROXY_TIMEOUT: Setting[float] = Setting(
    name="proxy_timeout",
    env="PROXY_TIMEOUT",
    flag="proxy-timeout",
    kind=duration(1.0),
    default=300.0,
    help="How long to try to reach the forwarder of a pod VM that has just been created.",
)
AGENT_LINK_GRACE: Setting[float] = Setting(
    name="agent_link_grace",
    env="AGENT_LINK_GRACE",
    flag="agent-link-grace",
    kind=duration(),
    default=300.0,
    help="How long a pod outlives the loss of its link to the pod VM: calls wait, the relay answers health checks. "
    "A pod VM that is gone is not waited for: the cloud is asked. 0 ends the pod at once.",
)
SUCCESSOR_WAIT: Setting[float] = Setting(
    name="successor_wait",
    env="SUCCESSOR_WAIT",
    flag="successor-wait",
    kind=duration(),
    default=20.0,
    help="How long a relay that is told to end goes on, while pods are attached, for a new one to take over from it. "
    "Keep it below terminationGracePeriodSeconds. 0 ends at once, and the pods with it.",
)

CONFIG_DIR: Setting[Path | None] = Setting(
    name="config_dir",
    env="CAA_CONFIG_DIR",
    flag="config-dir",
    kind=OPTIONAL_PATH,
    default=None,
    help="Folder with one file a key, as a mounted ConfigMap or Secret. The node looks at it every 5 s and on SIGHUP.",
)

RELAY_ROWS: tuple[AnySetting, ...] = (
    SOCKET,
    PODS_DIR,
    RUN_DIR,
    STATE_DIR,
    CONTROL_PLANE_GRACE,
    PROXY_TIMEOUT,
    AGENT_LINK_GRACE,
    SUCCESSOR_WAIT,
    CONFIG_DIR,
)
