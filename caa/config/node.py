"""Rows of the control plane, `caa node`; `checks` holds the rules among them, the chosen driver adds its own rows."""

from caa.config.identity import IDENTITY_ROWS
from caa.config.kinds import BOOL, NETWORKS, STRING, IPNetwork, choice, integer, matching
from caa.config.lifetimes import LIFETIME_ROWS
from caa.config.relay import RELAY_ROWS
from caa.config.setting import AnySetting, Setting
from caa.config.tls_rows import TLS_ROWS

PAUSE_IMAGE: Setting[str] = Setting(
    name="pause_image",
    env="PAUSE_IMAGE",
    flag="pause-image",
    kind=STRING,
    default="",
    help="Accepted for old ConfigMaps and not used: the pause image is part of the pod VM image.",
)
FORWARDER_PORT: Setting[int] = Setting(
    name="forwarder_port",
    env="FORWARDER_PORT",
    flag="forwarder-port",
    kind=integer(1, 65535),
    default=15150,
    help="TCP port of the agent protocol forwarder in the pod VM.",
)
TUNNEL_TYPE: Setting[str] = Setting(
    name="tunnel_type",
    env="TUNNEL_TYPE",
    flag="tunnel-type",
    kind=choice("vxlan"),
    default="vxlan",
    help="Tunnel between worker node and pod VM.",
)
VXLAN_PORT: Setting[int] = Setting(
    name="vxlan_port",
    env="VXLAN_PORT",
    flag="vxlan-port",
    kind=integer(1, 65535),
    default=4789,
    help="UDP port of the VXLAN tunnels.",
)
VXLAN_MIN_ID: Setting[int] = Setting(
    name="vxlan_min_id",
    env="VXLAN_MIN_ID",
    flag="vxlan-min-id",
    kind=integer(1, 2**24 - 1),
    default=555000,
    help="VXLAN id of the first tunnel; each pod takes the next one and none is used twice.",
)
HOST_INTERFACE: Setting[str] = Setting(
    name="host_interface",
    env="HOST_INTERFACE",
    flag="host-interface",
    kind=matching(r"[^/\s:]{0,15}", "an interface name of up to 15 characters, or nothing"),
    default="",
    help="Interface of the worker node that the tunnels use; empty takes the one that leads to the pod VM.",
)
INITDATA: Setting[str] = Setting(
    name="initdata",
    env="INITDATA",
    flag="initdata",
    kind=matching(r"[A-Za-z0-9+/=\s]*", "initdata TOML, compressed by gzip and encoded in base64"),
    default="",
    live=True,
    help="Initdata of pods that bring none of their own: TOML, compressed by gzip, in base64.",
)
CLOUD_CONFIG_VERIFY: Setting[bool] = Setting(
    name="cloud_config_verify",
    env="CLOUD_CONFIG_VERIFY",
    flag="cloud-config-verify",
    kind=BOOL,
    default=False,
    help="Prove at the start that the cloud accepts credentials, image, network and quota; stop when it does not.",
)
PEERPODS_LIMIT_PER_NODE: Setting[int] = Setting(
    name="peerpods_limit_per_node",
    env="PEERPODS_LIMIT_PER_NODE",
    flag="peerpods-limit-per-node",
    kind=integer(-1, 10_000),
    default=10,
    help="Capacity kata.peerpods.io/vm of this node; -1 advertises none. Taken and checked; nothing reads it yet.",
)
ENABLE_SCRATCH_SPACE: Setting[bool] = Setting(
    name="enable_scratch_space",
    env="ENABLE_SCRATCH_SPACE",
    flag="enable-scratch-space",
    kind=BOOL,
    default=False,
    live=True,
    help="Ask the pod VM to keep unpacked images on an encrypted disk of its own; not every image can, `local` cannot.",
)
EXTERNAL_NETWORK_VIA_PODVM: Setting[bool] = Setting(
    name="external_network_via_podvm",
    env="EXTERNAL_NETWORK_VIA_PODVM",
    flag="ext-network-via-podvm",
    kind=BOOL,
    default=False,
    live=True,
    help="Tell the forwarder that traffic leaving the cluster goes by a second interface; aws, azure and gcp make one.",
)
LINK_LOCAL_ALLOW: Setting[tuple[IPNetwork, ...]] = Setting(
    name="link_local_allow",
    env="LINK_LOCAL_ALLOW",
    flag="link-local-allow",
    kind=NETWORKS,
    default=(),
    live=True,
    help="Link-local and metadata addresses that containers may reach (our pod VM image denies all but port 53); "
    "0.0.0.0/0 allows everything.",
)
POD_SUBNET_CIDRS: Setting[tuple[IPNetwork, ...]] = Setting(
    name="pod_subnet_cidrs",
    env="POD_SUBNET_CIDRS",
    flag="pod-subnet-cidrs",
    kind=NETWORKS,
    default=(),
    help="Networks that stay in the tunnel with EXTERNAL_NETWORK_VIA_PODVM. Taken and checked; nothing reads it yet.",
)
PROBE_PORT: Setting[int] = Setting(
    name="probe_port",
    env="PROBE_PORT",
    kind=integer(0, 65535),
    default=8000,
    help="TCP port on 127.0.0.1 of the health endpoints; 0 serves none.",
)
LOG_LEVEL: Setting[str] = Setting(
    name="log_level",
    env="LOG_LEVEL",
    flag="log-level",
    kind=choice("debug", "info", "warning", "error"),
    default="info",
    live=True,
    help="The least severe log lines to write.",
)
LOG_FORMAT: Setting[str] = Setting(
    name="log_format",
    env="LOG_FORMAT",
    flag="log-format",
    kind=choice("console", "json"),
    default="console",
    live=True,
    help="Log lines for people or, one JSON object a line, for machines.",
)

NETWORK_ROWS: tuple[AnySetting, ...] = (
    TUNNEL_TYPE,
    VXLAN_PORT,
    VXLAN_MIN_ID,
    HOST_INTERFACE,
    EXTERNAL_NETWORK_VIA_PODVM,
    LINK_LOCAL_ALLOW,
    POD_SUBNET_CIDRS,
)
NODE_ROWS: tuple[AnySetting, ...] = (
    *IDENTITY_ROWS,
    *RELAY_ROWS,
    FORWARDER_PORT,
    *TLS_ROWS,
    *NETWORK_ROWS,
    *LIFETIME_ROWS,
    INITDATA,
    ENABLE_SCRATCH_SPACE,
    CLOUD_CONFIG_VERIFY,
    PEERPODS_LIMIT_PER_NODE,
    PAUSE_IMAGE,
    PROBE_PORT,
    LOG_LEVEL,
    LOG_FORMAT,
)
