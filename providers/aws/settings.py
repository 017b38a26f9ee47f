"""What an operator may set for `aws`. Rows only; nothing is read here."""

from caa.config.kinds import BOOL, LIST, OPTIONAL_URL, STRING, integer, list_of, matching
from caa.config.setting import AnySetting, Setting
from caa.provider.rows import CLOUD_ROWS, PURCHASE_OPTIONS, disable_cvm, root_volume_size

_SUBNET = matching(r"(subnet-[0-9a-f]{8,17})?", "a subnet id such as subnet-0123456789abcdef0, or nothing")
_AMI = matching(r"(ami-[0-9a-f]{8,17})?", "an image id such as ami-0123456789abcdef0, or nothing")
_GROUPS = list_of(
    matching(r"sg-[0-9a-f]{8,17}", "").parse, "security group ids separated by commas, such as sg-0123456789abcdef0"
)

ACCESS_KEY_ID = Setting(
    name="aws_access_key_id",
    env="AWS_ACCESS_KEY_ID",
    flag="aws-access-key-id",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Static key, used together with AWS_SECRET_ACCESS_KEY. Without the two, AWS's own chain finds credentials: "
    "profile, IRSA (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE), Pod Identity, instance profile.",
)
SECRET_KEY = Setting(
    name="aws_secret_access_key",
    env="AWS_SECRET_ACCESS_KEY",
    flag="aws-secret-key",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Static secret key.",
)
SESSION_TOKEN = Setting(
    name="aws_session_token",
    env="AWS_SESSION_TOKEN",
    flag="aws-session-token",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Session token of a static key that is a temporary one.",
)
PROFILE = Setting(
    name="aws_profile",
    flag="aws-profile",
    kind=STRING,
    default="",
    help="Profile of AWS's shared files; used when there is no static key.",
)
REGION = Setting(
    name="aws_region",
    env="AWS_REGION",
    flag="aws-region",
    kind=matching(r"([a-z]{2}(-[a-z]+)+-[0-9])?", "a region such as eu-west-1, or nothing"),
    default="",
    help="The region; empty takes the node's own, from its instance metadata.",
)
EC2_ENDPOINT = Setting(
    name="aws_ec2_endpoint",
    env="AWS_ENDPOINT_URL_EC2",
    flag="aws-ec2-endpoint",
    kind=OPTIONAL_URL,
    default="",
    help="Another EC2 endpoint: a private one, a test server. AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_STS work as well.",
)
STS_ENDPOINT = Setting(
    name="aws_sts_endpoint",
    env="AWS_ENDPOINT_URL_STS",
    flag="aws-sts-endpoint",
    kind=OPTIONAL_URL,
    default="",
    help="Another STS endpoint, for the check of credentials.",
)
QUOTAS_ENDPOINT = Setting(
    name="aws_quotas_endpoint",
    env="AWS_ENDPOINT_URL_SERVICE_QUOTAS",
    flag="aws-quotas-endpoint",
    kind=OPTIONAL_URL,
    default="",
    help="Another Service Quotas endpoint, for the check of quotas.",
)
RIGHTS_BY_TAG = Setting(
    name="aws_rights_by_tag",
    env="AWS_RIGHTS_BY_TAG",
    flag="aws-rights-by-tag",
    kind=BOOL,
    default=False,
    live=True,
    help="The role may touch only what carries our tags. Where nothing does yet, the check cannot prove such rights, "
    "and warns instead of calling them missing.",
)
METADATA_ENDPOINT = Setting(
    name="aws_metadata_endpoint",
    env="AWS_EC2_METADATA_SERVICE_ENDPOINT",
    kind=matching(r"http://[^\s]+", "an http URL"),
    default="http://169.254.169.254",
    help="Where the node's instance metadata is asked for the region, subnet and security groups that are not set.",
)
INSTANCE_TYPE = Setting(
    name="podvm_instance_type",
    env="PODVM_INSTANCE_TYPE",
    flag="instance-type",
    kind=STRING,
    default="m6a.large",
    live=True,
    help="Instance type of a pod that asks for nothing.",
)
INSTANCE_TYPES = Setting(
    name="podvm_instance_types",
    env="PODVM_INSTANCE_TYPES",
    flag="instance-types",
    kind=LIST,
    default=(),
    live=True,
    help="Instance types that a pod may ask for, by name or by size; the default one is always allowed.",
)
USE_TEMPLATE = Setting(
    name="use_podvm_launchtemplate",
    env="USE_PODVM_LAUNCHTEMPLATE",
    flag="use-lt",
    kind=BOOL,
    default=False,
    live=True,
    help="Launch from a template. What is set here or asked for by a pod wins over what the template says.",
)
TEMPLATE_NAME = Setting(
    name="podvm_launchtemplate_name",
    env="PODVM_LAUNCHTEMPLATE_NAME",
    flag="aws-lt-name",
    kind=STRING,
    default="kata",
    live=True,
    help="The launch template's name; its default version is taken.",
)
IMAGE = Setting(
    name="podvm_ami_id",
    env="PODVM_AMI_ID",
    flag="imageid",
    kind=_AMI,
    default="",
    live=True,
    help="The pod VM image. Needed, unless a launch template names one.",
)
KEY_NAME = Setting(
    name="ssh_kp_name",
    env="SSH_KP_NAME",
    flag="keyname",
    kind=STRING,
    default="",
    live=True,
    help="EC2 key pair for the pod VM; empty gives it none.",
)
SUBNET = Setting(
    name="aws_subnet_id",
    env="AWS_SUBNET_ID",
    flag="subnetid",
    kind=_SUBNET,
    default="",
    live=True,
    help="Subnet of the pod VMs; empty takes the node's. FALLBACK_ZONES names further ones.",
)
SECURITY_GROUPS = Setting(
    name="aws_sg_ids",
    env="AWS_SG_IDS",
    flag="securitygroupids",
    kind=_GROUPS,
    default=(),
    live=True,
    help="Security groups of the pod VMs; empty takes the node's.",
)
ENCRYPT_ROOT = Setting(
    name="aws_encrypt_root",
    env="AWS_ENCRYPT_ROOT",
    flag="aws-encrypt-root",
    kind=BOOL,
    default=True,
    live=True,
    help="Encrypt the root disk.",
)
KMS_KEY = Setting(
    name="aws_kms_key_id",
    env="AWS_KMS_KEY_ID",
    flag="aws-kms-key-id",
    kind=STRING,
    default="",
    live=True,
    help="KMS key of the root disk: id, alias or ARN; empty is the account's default key.",
)
INSTANCE_PROFILE = Setting(
    name="aws_instance_profile",
    env="AWS_INSTANCE_PROFILE",
    flag="aws-instance-profile",
    kind=STRING,
    default="",
    live=True,
    help="Instance profile of the pod VM, name or ARN; the pod can use its rights. Empty gives it none.",
)
HOP_LIMIT = Setting(
    name="aws_metadata_hop_limit",
    env="AWS_METADATA_HOP_LIMIT",
    flag="aws-metadata-hop-limit",
    kind=integer(1, 64),
    default=1,
    live=True,
    help="How many hops an answer of the pod VM's instance metadata may travel; with 1 no container reaches it. "
    "IMDSv2 is always required.",
)
PLACEMENT_GROUP = Setting(
    name="aws_placement_group",
    env="AWS_PLACEMENT_GROUP",
    flag="aws-placement-group",
    kind=STRING,
    default="",
    live=True,
    help="Placement group of the pod VMs.",
)
TENANCY = Setting(
    name="aws_tenancy",
    env="AWS_TENANCY",
    flag="aws-tenancy",
    kind=matching(r"(default|dedicated|host)?", "default, dedicated or host, or nothing"),
    default="",
    live=True,
    help="Tenancy of the pod VMs.",
)
HOST_ID = Setting(
    name="aws_dedicated_host_id",
    env="AWS_DEDICATED_HOST_ID",
    flag="aws-dedicated-host-id",
    kind=STRING,
    default="",
    live=True,
    help="Dedicated host of the pod VMs; implies AWS_TENANCY=host.",
)
HOST_GROUP = Setting(
    name="aws_host_resource_group_arn",
    env="AWS_HOST_RESOURCE_GROUP_ARN",
    flag="aws-host-resource-group-arn",
    kind=STRING,
    default="",
    live=True,
    help="Host resource group of the pod VMs; implies AWS_TENANCY=host.",
)
RESERVATION = Setting(
    name="aws_capacity_reservation_id",
    env="AWS_CAPACITY_RESERVATION_ID",
    flag="aws-capacity-reservation-id",
    kind=STRING,
    default="",
    live=True,
    help="Capacity reservation that the pod VMs use.",
)
CAPACITY_BLOCK = Setting(
    name="aws_capacity_block",
    env="AWS_CAPACITY_BLOCK",
    flag="aws-capacity-block",
    kind=BOOL,
    default=False,
    live=True,
    help="AWS_CAPACITY_RESERVATION_ID is a capacity block (for GPUs).",
)
DISABLE_CVM = disable_cvm(default=False)
ROOT_SIZE = root_volume_size(default=30)

SETTINGS: tuple[AnySetting, ...] = (
    ACCESS_KEY_ID,
    SECRET_KEY,
    SESSION_TOKEN,
    PROFILE,
    REGION,
    EC2_ENDPOINT,
    STS_ENDPOINT,
    QUOTAS_ENDPOINT,
    METADATA_ENDPOINT,
    INSTANCE_TYPE,
    INSTANCE_TYPES,
    USE_TEMPLATE,
    TEMPLATE_NAME,
    IMAGE,
    KEY_NAME,
    SUBNET,
    SECURITY_GROUPS,
    DISABLE_CVM,
    ROOT_SIZE,
    ENCRYPT_ROOT,
    KMS_KEY,
    INSTANCE_PROFILE,
    HOP_LIMIT,
    PLACEMENT_GROUP,
    TENANCY,
    HOST_ID,
    HOST_GROUP,
    RESERVATION,
    CAPACITY_BLOCK,
    RIGHTS_BY_TAG,
    PURCHASE_OPTIONS,
    *CLOUD_ROWS,
)
