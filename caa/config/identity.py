"""Rows that say who this node is: provider, cluster, node, pod."""

from caa.config.kinds import STRING, matching
from caa.config.setting import AnySetting, Setting

CLOUD_PROVIDER: Setting[str] = Setting(
    name="cloud_provider",
    env="CLOUD_PROVIDER",
    flag="cloud-provider",
    kind=matching(r"[a-z][a-z0-9_-]{0,62}", "a driver's name such as aws, azure, gcp, libvirt or local"),
    default="local",
    help="The driver that makes pod VMs. `local` runs them as processes of this machine, without isolation.",
)
FORGET_PROVIDER: Setting[str] = Setting(
    name="forget_provider",
    env="FORGET_PROVIDER",
    flag="forget-provider",
    kind=matching(r"([a-z][a-z0-9_-]{0,62})?", "a driver's name such as aws, azure, gcp, libvirt or local, or nothing"),
    default="",
    help="Give up the pods that this other provider runs for this node, which otherwise keep a changed CLOUD_PROVIDER "
    "from starting; their pod VMs are named in the log and left to you.",
)
CLUSTER_ID: Setting[str] = Setting(
    name="cluster_id",
    env="CAA_CLUSTER_ID",
    flag="cluster-id",
    kind=matching(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,62})?", "up to 63 letters, digits, '_', '.' or '-', or nothing"),
    default="",
    help="Names this cluster in the tags of all that is created; clusters that share a cloud account must differ. "
    "Empty makes up a name that only this node uses.",
)
NODE_NAME: Setting[str] = Setting(
    name="node_name",
    env="NODE_NAME",
    kind=matching(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,252})?", "a node name of up to 253 characters, or nothing"),
    default="",
    help="The Kubernetes node this runs on (downward API); empty takes the host name.",
)
POD_UID: Setting[str] = Setting(
    name="pod_uid",
    env="POD_UID",
    kind=STRING,
    default="",
    help="UID of the adaptor's own pod (downward API). Taken and checked; nothing reads it yet.",
)
POD_NAMESPACE: Setting[str] = Setting(
    name="pod_namespace",
    env="POD_NAMESPACE",
    kind=STRING,
    default="",
    help="Namespace of the adaptor's own pod (downward API). Taken and checked; nothing reads it yet.",
)
RUNTIMECLASS_NAME: Setting[str] = Setting(
    name="runtimeclass_name",
    env="RUNTIMECLASS_NAME",
    kind=matching(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a RuntimeClass name"),
    default="kata-remote",
    help="RuntimeClass of peer pods. Taken and checked; nothing reads it yet.",
)

IDENTITY_ROWS: tuple[AnySetting, ...] = (
    CLOUD_PROVIDER,
    FORGET_PROVIDER,
    CLUSTER_ID,
    NODE_NAME,
    POD_UID,
    POD_NAMESPACE,
    RUNTIMECLASS_NAME,
)
