"""What an operator may set for `azure`. Rows only; nothing is read here."""

from caa.config.kinds import BOOL, LIST, OPTIONAL_PATH, STRING, choice, list_of, matching
from caa.config.setting import AnySetting, Setting
from caa.provider.rows import CLOUD_ROWS, PURCHASE_OPTIONS, SECURE_BOOT, disable_cvm, root_volume_size

# Resource groups may have letters of any language. No part of an id is `.` or `..`, or has what a URL gives a meaning.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ARM = r"/subscriptions/[A-Za-z0-9-]{1,64}/resourceGroups/[\w.()-]{0,89}[\w()-]/providers/"
_SUBNET = matching(
    rf"(?i:({_ARM}Microsoft\.Network/virtualNetworks/{_NAME}/subnets/{_NAME})?)",
    "a whole resource id, /subscriptions/.../virtualNetworks/.../subnets/..., or nothing",
)
_GROUP = matching(
    rf"(?i:({_ARM}Microsoft\.Network/networkSecurityGroups/{_NAME})?)",
    "a whole resource id, /subscriptions/.../networkSecurityGroups/..., or nothing",
)
IMAGE_PATTERN = (
    rf"(?i:{_ARM}Microsoft\.Compute/(images/{_NAME}|galleries/{_NAME}/images/{_NAME}(/versions/{_NAME})?)"
    rf"|/(Community|Shared)Galleries/{_NAME}/images/{_NAME}(/versions/{_NAME})?)"
)
_IMAGE = matching(
    rf"({IMAGE_PATTERN})?",
    "a whole resource id of a gallery or managed image, /CommunityGalleries/... or /SharedGalleries/..., or nothing",
)
_DES = matching(
    rf"(?i:({_ARM}Microsoft\.Compute/diskEncryptionSets/{_NAME})?)",
    "a whole resource id, /subscriptions/.../diskEncryptionSets/..., or nothing",
)
_IDENTITIES = list_of(
    matching(rf"(?i:{_ARM}Microsoft\.ManagedIdentity/userAssignedIdentities/{_NAME})", "").parse,
    "whole resource ids, /subscriptions/.../userAssignedIdentities/..., separated by commas",
)
DISK_PATTERN = rf"(?i:{_ARM}Microsoft\.Compute/disks/{_NAME})"
_URL = matching(r"(https://[^\s]+)?", "an https URL, or nothing")

# Names that Azure refuses ("FAQ about Linux virtual machines"), as far as they are names of Linux.
_REFUSED = (
    "a|actuser|adm|admin|admin1|admin2|administrator|aspnet|backup|console|david|guest|john|owner|root|server|sql|"
    "support|support_388945a0|sys|test|test1|test2|test3|user|user1|user2|user3|user4|user5"
)
_USER = matching(rf"(?!({_REFUSED})$)[a-z_][a-z0-9_-]{{0,31}}", "a Linux user name that Azure does not refuse, as root")

PUBLIC, GOVERNMENT, CHINA = "AzureCloud", "AzureUSGovernment", "AzureChinaCloud"
STATE_ONLY, WHOLE_DISK, NO_STATE = "VMGuestStateOnly", "DiskWithVMGuestState", "NonPersistedTPM"
AUTO, ON, OFF = "auto", "on", "off"

CLIENT_ID = Setting(
    name="azure_client_id",
    env="AZURE_CLIENT_ID",
    flag="clientid",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Application of a service principal or workload identity, or the user-assigned managed identity of the node.",
)
CLIENT_SECRET = Setting(
    name="azure_client_secret",
    env="AZURE_CLIENT_SECRET",
    flag="secret",
    kind=STRING,
    default="",
    secret=True,
    live=True,
    help="Secret of the service principal. Without it, workload identity is used where AZURE_FEDERATED_TOKEN_FILE is "
    "set, else Azure's own chain: managed identity, environment, command line tools.",
)
TENANT_ID = Setting(
    name="azure_tenant_id",
    env="AZURE_TENANT_ID",
    flag="tenantid",
    kind=matching(r"[A-Za-z0-9.-]*", "a tenant's id or domain, or nothing"),
    default="",
    secret=True,
    live=True,
    help="Tenant of the service principal or workload identity.",
)
TOKEN_FILE = Setting(
    name="azure_federated_token_file",
    env="AZURE_FEDERATED_TOKEN_FILE",
    kind=OPTIONAL_PATH,
    default=None,
    live=True,
    help="File with the service account's token, for workload identity; it is read again for every new token.",
)
SUBSCRIPTION = Setting(
    name="azure_subscription_id",
    env="AZURE_SUBSCRIPTION_ID",
    flag="subscriptionid",
    kind=matching(r"[A-Za-z0-9-]*", "a subscription's id"),
    default="",
    help="The subscription. Needed.",
)
REGION = Setting(
    name="azure_region",
    env="AZURE_REGION",
    flag="region",
    kind=matching(r"[a-z0-9]*", "a region's short name such as westeurope"),
    default="",
    help="The region. Needed.",
)
RESOURCE_GROUP = Setting(
    name="azure_resource_group",
    env="AZURE_RESOURCE_GROUP",
    flag="resourcegroup",
    kind=matching(r"[A-Za-z0-9._()-]{0,90}", "a resource group's name"),
    default="",
    help="Resource group in which pod VMs, their disks, interfaces and addresses are made. Needed.",
)
INSTANCE_SIZE = Setting(
    name="azure_instance_size",
    env="AZURE_INSTANCE_SIZE",
    flag="instance-size",
    kind=STRING,
    default="Standard_DC2as_v5",
    live=True,
    help="Size of a pod VM for a pod that asks for nothing.",
)
INSTANCE_SIZES = Setting(
    name="azure_instance_sizes",
    env="AZURE_INSTANCE_SIZES",
    flag="instance-sizes",
    kind=LIST,
    default=(),
    live=True,
    help="Sizes that a pod may ask for, by name or by numbers; the default one is always allowed.",
)
ZONE = Setting(
    name="azure_zone",
    env="AZURE_ZONE",
    flag="zone",
    kind=matching(r"[1-9]?", "a zone's number, or nothing"),
    default="",
    live=True,
    help="Availability zone of the pod VMs; empty leaves the choice to Azure. FALLBACK_ZONES names further ones.",
)
SUBNET = Setting(
    name="azure_subnet_id",
    env="AZURE_SUBNET_ID",
    flag="subnetid",
    kind=_SUBNET,
    default="",
    live=True,
    help="Subnet of the pod VMs, as a whole resource id. Needed.",
)
SECURITY_GROUP = Setting(
    name="azure_nsg_id",
    env="AZURE_NSG_ID",
    flag="securitygroupid",
    kind=_GROUP,
    default="",
    live=True,
    help="Network security group of the pod VMs, as a whole resource id; empty leaves it to the subnet's.",
)
IMAGE = Setting(
    name="azure_image_id",
    env="AZURE_IMAGE_ID",
    flag="imageid",
    kind=_IMAGE,
    default="",
    live=True,
    help="The pod VM image: a gallery image (version), /CommunityGalleries/..., /SharedGalleries/..., or a managed "
    "image for ordinary pod VMs. Needed.",
)
SSH_KEY = Setting(
    name="ssh_key_path",
    env="AZURE_SSH_KEY_PATH",
    flag="ssh-key-path",
    kind=OPTIONAL_PATH,
    default=None,
    live=True,
    help="Public key for the pod VM's administrator, a file of mode 0600. Without it the pod VM gets a key whose "
    "private half nobody has.",
)
SSH_USER = Setting(
    name="ssh_username",
    env="SSH_USERNAME",
    flag="ssh-username",
    kind=_USER,
    default="peerpod",
    live=True,
    help="Administrator of the pod VM.",
)
CVM_ENCRYPTION = Setting(
    name="azure_cvm_encryption",
    env="AZURE_CVM_ENCRYPTION",
    flag="azure-cvm-encryption",
    kind=choice(STATE_ONLY, WHOLE_DISK, NO_STATE),
    default=STATE_ONLY,
    live=True,
    help="What Azure encrypts for a confidential pod VM: the vTPM's state, the root disk as well (needs "
    "ENABLE_SECURE_BOOT), or nothing, since the vTPM's state is not kept.",
)
TRUSTED_LAUNCH = Setting(
    name="azure_trusted_launch",
    env="AZURE_TRUSTED_LAUNCH",
    flag="azure-trusted-launch",
    kind=choice(AUTO, ON, OFF),
    default=AUTO,
    live=True,
    help="Trusted launch (vTPM) for ordinary pod VMs: auto uses it where the image says that it can.",
)
DISK_TYPE = Setting(
    name="azure_disk_type",
    env="AZURE_DISK_TYPE",
    flag="azure-disk-type",
    kind=choice("Standard_LRS", "StandardSSD_LRS", "Premium_LRS", "StandardSSD_ZRS", "Premium_ZRS"),
    default="Premium_LRS",
    live=True,
    help="Storage of the root disk.",
)
DISK_ENCRYPTION_SET = Setting(
    name="azure_disk_encryption_set",
    env="AZURE_DISK_ENCRYPTION_SET",
    flag="azure-disk-encryption-set",
    kind=_DES,
    default="",
    live=True,
    help="Disk encryption set (own keys) of the root disk, as a whole resource id.",
)
ENCRYPTION_AT_HOST = Setting(
    name="azure_encryption_at_host",
    env="AZURE_ENCRYPTION_AT_HOST",
    flag="azure-encryption-at-host",
    kind=BOOL,
    default=False,
    live=True,
    help="Encrypt temporary disks and caches on the host; the subscription needs the feature.",
)
IDENTITIES = Setting(
    name="azure_vm_identities",
    env="AZURE_VM_IDENTITIES",
    flag="azure-vm-identities",
    kind=_IDENTITIES,
    default=(),
    live=True,
    help="User-assigned identities of the pod VM; the pod can use their rights. Empty gives it none.",
)
CLOUD = Setting(
    name="azure_cloud",
    env="AZURE_CLOUD",
    flag="azure-cloud",
    kind=choice(PUBLIC, GOVERNMENT, CHINA),
    default=PUBLIC,
    help="Which Azure: its endpoints and the audience of tokens follow from it.",
)
ENDPOINT = Setting(
    name="azure_resource_manager_endpoint",
    env="AZURE_RESOURCE_MANAGER_ENDPOINT",
    flag="azure-resource-manager-endpoint",
    kind=_URL,
    default="",
    help="Another endpoint of Azure Resource Manager: a private one, a test server.",
)
AUTHORITY = Setting(
    name="azure_authority_host",
    env="AZURE_AUTHORITY_HOST",
    flag="azure-authority-host",
    kind=_URL,
    default="",
    help="Another host that gives tokens.",
)
CA_BUNDLE = Setting(
    name="azure_ca_bundle",
    env="AZURE_CA_BUNDLE",
    flag="azure-ca-bundle",
    kind=OPTIONAL_PATH,
    default=None,
    help="Certificates of the authorities that signed those endpoints', where the system's do not do.",
)
DISABLE_CVM = disable_cvm(default=False)
ROOT_SIZE = root_volume_size(default=0)

SETTINGS: tuple[AnySetting, ...] = (
    CLIENT_ID,
    CLIENT_SECRET,
    TENANT_ID,
    TOKEN_FILE,
    SUBSCRIPTION,
    REGION,
    RESOURCE_GROUP,
    INSTANCE_SIZE,
    INSTANCE_SIZES,
    ZONE,
    SUBNET,
    SECURITY_GROUP,
    IMAGE,
    SSH_KEY,
    SSH_USER,
    DISABLE_CVM,
    SECURE_BOOT,
    CVM_ENCRYPTION,
    TRUSTED_LAUNCH,
    ROOT_SIZE,
    DISK_TYPE,
    DISK_ENCRYPTION_SET,
    ENCRYPTION_AT_HOST,
    IDENTITIES,
    CLOUD,
    ENDPOINT,
    AUTHORITY,
    CA_BUNDLE,
    PURCHASE_OPTIONS,
    *CLOUD_ROWS,
)
