"""Azure's error codes by what they mean for us, and what to do about each. Data; source: the REST reference."""

from types import MappingProxyType

from caa.errors import ProviderError, ProviderUnavailable
from caa.provider.capacity import ErrorCodes, classified

NIC_RESERVED = "NicReservedForAnotherVm"
NOT_ALLOWED = "OperationNotAllowed"
# Something has to go first, or is being worked on.
HELD = (
    NIC_RESERVED,
    "AnotherOperationInProgress",
    "Conflict",
    "InUseByDeletingResource",
    "NicInUse",
    "PublicIPAddressCannotBeDeleted",
)
LEFT_OVER = "ConflictingUserInput"  # a disk of that name exists
EXISTS = frozenset({"PreconditionFailed", "ResourceExists"})

_KEYS = (
    "check AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or the identity of the node or its service account"
)
_RIGHTS = "give the identity the role that docs/providers/azure.md lists"
_ROOM = "name more sizes in FALLBACK_TYPES or more zones in FALLBACK_ZONES"
_SIZE = "see AZURE_INSTANCE_SIZE and AZURE_INSTANCE_SIZES"
_IMAGE = "see AZURE_IMAGE_ID, or the pod's annotation io.katacontainers.config.hypervisor.image"
_QUOTA = "ask Azure to raise the subscription's vCPU quota of this family in AZURE_REGION"

CODES = ErrorCodes(
    capacity=frozenset(
        {
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "AllocationTimeout",
            "SkuNotAvailable",
        }
    ),
    quota=frozenset(
        {
            "QuotaExceeded",
            NOT_ALLOWED,
            "SubnetIsFull",  # no other size or zone has room in it
            "PublicIPCountLimitReached",
            "NetworkInterfaceCountLimitReached",
            "ResourceQuotaExceeded",
        }
    ),
    throttled=frozenset(
        {"TooManyRequests", "OperationPreempted", "RetryableErrorDueToThrottling", "SubscriptionThrottled"}
    ),
    unavailable=frozenset(
        {
            "InternalServerError",
            "ServerTimeout",
            "ServiceUnavailable",
            "RetryableError",
            "GatewayTimeout",
            "InternalExecutionError",
            "NetworkingInternalOperationError",
            *HELD,
        }
    ),
    unauthorised=frozenset(
        {
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "AuthenticationFailed",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
            "ExpiredAuthenticationToken",
            "DisallowedOperation",
        }
    ),
    misconfigured=frozenset(
        {
            "SubscriptionNotFound",
            "InvalidSubscriptionId",
            "ResourceGroupNotFound",
            "InvalidResourceReference",
            "LocationNotAvailableForResourceType",
            "NoRegisteredProviderFound",
            "MissingSubscriptionRegistration",
            "RequestDisallowedByPolicy",
            "ScopeLocked",
        }
    ),
    invalid=frozenset(
        {
            "InvalidParameter",
            "InvalidParameterValue",
            "InvalidRequestContent",
            "InvalidRequestFormat",
            "BadRequest",
            "PropertyChangeNotAllowed",
            "ImageNotFound",
            "GalleryImageNotFound",
            "PlatformImageNotFound",
            "UserDataTooLarge",
            "AttachDiskWhileBeingDetached",
            "DiskAttachedToAnotherVm",
            "VMMarketplaceInvalidInput",
            *EXISTS,
        }
    ),
    gone=frozenset({"ResourceNotFound", "ParentResourceNotFound", "NotFound", "DiskNotFound"}),
    remedies=MappingProxyType(
        {
            "AllocationFailed": _ROOM,
            "ZonalAllocationFailed": _ROOM,
            "OverconstrainedAllocationRequest": _ROOM,
            "OverconstrainedZonalAllocationRequest": _ROOM,
            "SkuNotAvailable": f"{_SIZE}, AZURE_ZONE and FALLBACK_ZONES",
            "SubnetIsFull": "take a larger subnet as AZURE_SUBNET_ID",
            "QuotaExceeded": _QUOTA,
            NOT_ALLOWED: _QUOTA,
            "PublicIPCountLimitReached": "ask Azure for more public addresses, or set USE_PUBLIC_IP=false",
            "TooManyRequests": "lower CLOUD_CALLS_PER_SECOND: the limit is the subscription's, not the node's",
            "AuthorizationFailed": _RIGHTS,
            "LinkedAuthorizationFailed": _RIGHTS,
            "AuthenticationFailed": _KEYS,
            "InvalidAuthenticationToken": _KEYS,
            "InvalidAuthenticationTokenTenant": "AZURE_TENANT_ID is not the tenant of AZURE_SUBSCRIPTION_ID",
            "ExpiredAuthenticationToken": "check the node's clock and AZURE_FEDERATED_TOKEN_FILE",
            "SubscriptionNotFound": "see AZURE_SUBSCRIPTION_ID",
            "InvalidSubscriptionId": "see AZURE_SUBSCRIPTION_ID",
            "ResourceGroupNotFound": "see AZURE_RESOURCE_GROUP",
            "InvalidResourceReference": "see AZURE_SUBNET_ID, AZURE_NSG_ID, AZURE_DISK_ENCRYPTION_SET and "
            "AZURE_VM_IDENTITIES",
            "LocationNotAvailableForResourceType": "see AZURE_REGION",
            "NoRegisteredProviderFound": "see AZURE_REGION",
            "MissingSubscriptionRegistration": "register Microsoft.Compute and Microsoft.Network in the subscription",
            "RequestDisallowedByPolicy": "the subscription's policies forbid it; see TAGS, USE_PUBLIC_IP, AZURE_REGION",
            "ScopeLocked": "remove the lock on AZURE_RESOURCE_GROUP",
            "ImageNotFound": _IMAGE,
            "GalleryImageNotFound": _IMAGE,
            "PlatformImageNotFound": _IMAGE,
            "InvalidParameter": f"{_SIZE}, AZURE_IMAGE_ID and AZURE_CVM_ENCRYPTION",
        }
    ),
)


def meant(code: str, words: str, *, retry_after: float = 0.0) -> ProviderError:
    """Our error for Azure's code. It says OperationNotAllowed of a quota, and of a thing that is still held or goes."""
    if code == NOT_ALLOWED and "quota" not in words.lower():
        return ProviderUnavailable(f"{code}: {words}; if it stays so, see in Azure what holds it, or ask Azure")
    return classified(code, words, codes=CODES, retry_after=retry_after)
