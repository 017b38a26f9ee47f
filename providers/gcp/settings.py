"""What an operator may set for `gcp`. Rows only; nothing is read here."""

from collections.abc import Mapping
from types import MappingProxyType

from caa.config.kinds import BOOL, LIST, OPTIONAL_URL, STRING, TAGS, choice, list_of, matching
from caa.config.setting import AnySetting, Setting
from caa.provider.rows import CLOUD_ROWS, PURCHASE_OPTIONS, SECURE_BOOT, disable_cvm, root_volume_size

_ZONE = matching(r"([a-z]+(-[a-z]+)*-[a-z]+[0-9]+-[a-z])?", "a zone such as europe-west3-a")
_NETWORK_TAGS = list_of(
    matching(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "").parse,
    "network tags separated by commas: small letters, digits and '-', a letter first",
)
_NO_TAGS: Mapping[str, str] = MappingProxyType({})

CREDENTIALS = Setting(
    name="gcp_credentials",
    env="GCP_CREDENTIALS",
    flag="gcp-credentials",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Credentials as JSON text: a service account's key, or the configuration of workload identity federation. "
    "Empty: Google's own chain (GOOGLE_APPLICATION_CREDENTIALS, gcloud, GKE workload identity, the node's account).",
)
PROJECT = Setting(
    name="gcp_project_id",
    env="GCP_PROJECT_ID",
    flag="gcp-project-id",
    kind=matching(r"([a-z][a-z0-9.-]{0,61}:)?[a-z][-a-z0-9]{4,28}[a-z0-9]|", "a project's id"),
    default="",
    required=True,
    help="The project in which pod VMs are made.",
)
ZONE = Setting(
    name="gcp_zone",
    env="GCP_ZONE",
    flag="zone",
    kind=_ZONE,
    default="",
    required=True,
    live=True,
    help="The zone of the pod VMs; FALLBACK_ZONES names further ones.",
)
IMAGE = Setting(
    name="podvm_image_name",
    env="PODVM_IMAGE_NAME",
    flag="image-name",
    kind=STRING,
    default="",
    live=True,
    help="The pod VM image: a name of an image of GCP_PROJECT_ID, projects/P/global/images/I, "
    "projects/P/global/images/family/F, or its URL.",
)
MACHINE_TYPE = Setting(
    name="gcp_machine_type",
    env="GCP_MACHINE_TYPE",
    flag="machine-type",
    kind=STRING,
    default="e2-medium",
    live=True,
    help="Machine type of a pod that asks for nothing. e2 has no TEE: choose another one, or set DISABLECVM=true.",
)
MACHINE_TYPES: Setting[tuple[str, ...]] = Setting(
    name="gcp_instance_types",
    env="GCP_INSTANCE_TYPES",
    flag="machine-types",
    kind=LIST,
    default=(),
    live=True,
    help="Machine types that a pod may ask for, by name or by size; the default one is always allowed.",
)
ACCELERATORS = Setting(
    name="gcp_accelerators",
    env="GCP_ACCELERATORS",
    flag="gcp-accelerators",
    kind=TAGS,
    default=_NO_TAGS,
    live=True,
    help="GPUs to attach, by machine type: n1-standard-8=nvidia-tesla-t4:1. Types with GPUs of their own need none.",
)
NETWORK = Setting(
    name="gcp_network",
    env="GCP_NETWORK",
    flag="network",
    kind=STRING,
    default="",
    required=True,
    live=True,
    help="VPC network of the pod VMs: a name, projects/P/global/networks/N, or its URL.",
)
SUBNETWORK = Setting(
    name="gcp_subnetwork",
    env="GCP_SUBNETWORK",
    flag="subnetwork",
    kind=STRING,
    default="",
    live=True,
    help="Subnetwork of the pod VMs: a name in the zone's region, projects/P/regions/R/subnetworks/S, or its URL. "
    "Empty is right in a network of automatic mode only.",
)
EXTERNAL_NETWORK = Setting(
    name="gcp_external_network",
    env="GCP_EXTERNAL_NETWORK",
    flag="gcp-external-network",
    kind=STRING,
    default="",
    live=True,
    help="VPC network of the second interface that EXTERNAL_NETWORK_VIA_PODVM gives; another one than GCP_NETWORK.",
)
EXTERNAL_SUBNETWORK = Setting(
    name="gcp_external_subnetwork",
    env="GCP_EXTERNAL_SUBNETWORK",
    flag="gcp-external-subnetwork",
    kind=STRING,
    default="",
    live=True,
    help="Subnetwork of the second interface, written like GCP_SUBNETWORK.",
)
STACK_TYPE = Setting(
    name="gcp_stack_type",
    env="GCP_STACK_TYPE",
    flag="gcp-stack-type",
    kind=choice("IPV4_ONLY", "IPV4_IPV6", "IPV6_ONLY"),
    default="IPV4_ONLY",
    live=True,
    help="Addresses of the pod VM's interfaces.",
)
NETWORK_TIER = Setting(
    name="gcp_network_tier",
    env="GCP_NETWORK_TIER",
    flag="gcp-network-tier",
    kind=choice("STANDARD", "PREMIUM"),
    default="STANDARD",
    live=True,
    help="Network tier of public addresses (USE_PUBLIC_IP).",
)
NETWORK_TAGS: Setting[tuple[str, ...]] = Setting(
    name="gcp_network_tags",
    env="GCP_NETWORK_TAGS",
    flag="gcp-network-tags",
    kind=_NETWORK_TAGS,
    default=(),
    live=True,
    help="Network tags of the pod VMs, for firewall rules.",
)
DISK_TYPE = Setting(
    name="gcp_disk_type",
    env="GCP_DISK_TYPE",
    flag="disk-type",
    kind=matching(r"[a-z][a-z0-9-]*", "a disk type such as pd-balanced"),
    default="pd-standard",
    live=True,
    help="Type of the root disk. While it is not set, machine types that cannot have pd-standard get pd-balanced or "
    "hyperdisk-balanced.",
)
KMS_KEY = Setting(
    name="gcp_kms_key",
    env="GCP_KMS_KEY",
    flag="gcp-kms-key",
    kind=matching(r"(projects/.+/locations/.+/keyRings/.+/cryptoKeys/.+)?", "a key's full name, or nothing"),
    default="",
    live=True,
    help="Cloud KMS key of the root disk; empty encrypts it with a key of Google's.",
)
CONFIDENTIAL_TYPE = Setting(
    name="gcp_confidential_type",
    env="GCP_CONFIDENTIAL_TYPE",
    flag="confidential-type",
    kind=choice("SEV", "SEV_SNP", "TDX", empty=True),
    default="",
    live=True,
    help="The TEE of the pod VMs. Empty takes the strongest of the machine type: SEV_SNP, then TDX, then SEV.",
)
VTPM = Setting(
    name="gcp_vtpm",
    env="GCP_VTPM",
    flag="gcp-vtpm",
    kind=BOOL,
    default=True,
    live=True,
    help="Give the pod VM a virtual TPM.",
)
INTEGRITY = Setting(
    name="gcp_integrity_monitoring",
    env="GCP_INTEGRITY_MONITORING",
    flag="gcp-integrity-monitoring",
    kind=BOOL,
    default=True,
    live=True,
    help="Let Google compare boot measurements; needs GCP_VTPM.",
)
SERVICE_ACCOUNT = Setting(
    name="gcp_podvm_service_account",
    env="GCP_PODVM_SERVICE_ACCOUNT",
    flag="gcp-podvm-service-account",
    kind=matching(r"([^\s@]+@[^\s@]+)?", "a service account's address, or nothing"),
    default="",
    live=True,
    help="Service account of the pod VM; the pod can use its rights. Empty gives it none.",
)
LABELS = Setting(
    name="gcp_labels",
    env="GCP_LABELS",
    flag="gcp-labels",
    kind=TAGS,
    default=_NO_TAGS,
    live=True,
    help="Labels on pod VM and disk beside our own. TAGS are resource-manager tags here, which have to exist.",
)
COMPUTE_ENDPOINT = Setting(
    name="gcp_compute_endpoint",
    env="GCP_COMPUTE_ENDPOINT",
    flag="gcp-compute-endpoint",
    kind=OPTIONAL_URL,
    default="",
    help="Another endpoint of Compute Engine: a private one, a test server.",
)
RESOURCE_MANAGER_ENDPOINT = Setting(
    name="gcp_resource_manager_endpoint",
    env="GCP_RESOURCE_MANAGER_ENDPOINT",
    flag="gcp-resource-manager-endpoint",
    kind=OPTIONAL_URL,
    default="",
    help="Another endpoint of Resource Manager, which knows tags (TAGS) and our permissions.",
)
UNIVERSE = Setting(
    name="gcp_universe_domain",
    env="GCP_UNIVERSE_DOMAIN",
    flag="gcp-universe-domain",
    kind=matching(r"[a-z0-9.-]+", "a domain"),
    default="googleapis.com",
    help="The domain of a sovereign cloud that Google's partners run.",
)
DISABLE_CVM = disable_cvm(default=False)
ROOT_SIZE = root_volume_size(default=10)

SETTINGS: tuple[AnySetting, ...] = (
    CREDENTIALS,
    PROJECT,
    ZONE,
    IMAGE,
    MACHINE_TYPE,
    MACHINE_TYPES,
    ACCELERATORS,
    NETWORK,
    SUBNETWORK,
    EXTERNAL_NETWORK,
    EXTERNAL_SUBNETWORK,
    STACK_TYPE,
    NETWORK_TIER,
    NETWORK_TAGS,
    DISK_TYPE,
    KMS_KEY,
    DISABLE_CVM,
    CONFIDENTIAL_TYPE,
    SECURE_BOOT,
    VTPM,
    INTEGRITY,
    ROOT_SIZE,
    SERVICE_ACCOUNT,
    LABELS,
    COMPUTE_ENDPOINT,
    RESOURCE_MANAGER_ENDPOINT,
    UNIVERSE,
    PURCHASE_OPTIONS,
    *CLOUD_ROWS,
)
