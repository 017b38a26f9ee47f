"""Compute Engine's error codes by what they mean for us, and what to do about each. Data only.

Two families: `reason` of a refused call (Compute Engine API, "Errors") and `code` of a failed operation.
"""

from types import MappingProxyType

from caa.provider.capacity import ErrorCodes

DENIED = ("forbidden", "IAM_PERMISSION_DENIED")
EXISTS = ("alreadyExists", "RESOURCE_ALREADY_EXISTS")

_RIGHTS = "give the node's service account the role that docs/providers/gcp.md lists"
_ENABLE = "enable this API in GCP_PROJECT_ID: compute.googleapis.com, cloudresourcemanager.googleapis.com"
_SCOPE = "give the node the scope cloud-platform, or set GCP_CREDENTIALS"
_KEYS = (
    "check GCP_CREDENTIALS, or what Google's own chain finds (GOOGLE_APPLICATION_CREDENTIALS, GKE workload identity, "
    "the node's service account), and the node's clock"
)
_PLACES = "name more types in FALLBACK_TYPES or more zones in FALLBACK_ZONES"
# Seen by operators of other software: kubernetes-sigs/cluster-api-provider-gcp issue 1437.
_PLACES_OR_TEE = f"{_PLACES}; a zone that lacks the TEE says the same"
_QUOTA = "ask Google to raise the project's quota in this region, or name zones of other regions in FALLBACK_ZONES"
_SLOWER = "lower CLOUD_CALLS_PER_SECOND: the limit is the project's, not the node's"
_ADDRESSES = "take a larger GCP_SUBNETWORK"

CODES = ErrorCodes(
    capacity=frozenset(
        {
            "ZONE_RESOURCE_POOL_EXHAUSTED",
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            "REGION_RESOURCE_POOL_EXHAUSTED",
            "RESOURCE_POOL_EXHAUSTED",
            "STOCKOUT",
            "IP_SPACE_EXHAUSTED",
            "IP_SPACE_EXHAUSTED_WITH_DETAILS",
            "insufficientCapacity",
            "resourcePoolExhausted",
        }
    ),
    quota=frozenset({"quotaExceeded", "limitExceeded", "QUOTA_EXCEEDED", "QUOTA_FOR_INSTANCES", "LIMIT_EXCEEDED"}),
    throttled=frozenset(
        {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "operationRateLimitExceeded"}
    ),
    unavailable=frozenset(
        {"backendError", "internalError", "INTERNAL_ERROR", "resourceNotReady", "RESOURCE_NOT_READY", "UNAVAILABLE"}
    ),
    unauthorised=frozenset(
        {
            "authError",
            "required",
            "accessNotConfigured",
            "SERVICE_DISABLED",
            "PERMISSIONS_ERROR",
            "insufficientPermissions",
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            *DENIED,
        }
    ),
    misconfigured=frozenset(
        {"RESOURCE_NOT_FOUND", "UNSUPPORTED_OPERATION", "INVALID_USAGE", "conditionNotMet", "resourceNotFound"}
    ),
    invalid=frozenset(
        {
            "invalid",
            "badRequest",
            "invalidParameter",
            "INVALID_FIELD_VALUE",
            "INVALID_ARGUMENT",
            "resourceInUseByAnotherResource",
            "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
            *EXISTS,
        }
    ),
    gone=frozenset({"notFound"}),
    remedies=MappingProxyType(
        {
            "forbidden": _RIGHTS,
            "insufficientPermissions": _RIGHTS,
            "PERMISSIONS_ERROR": _RIGHTS,
            "IAM_PERMISSION_DENIED": _RIGHTS,
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT": _SCOPE,
            "accessNotConfigured": _ENABLE,
            "SERVICE_DISABLED": _ENABLE,
            "authError": _KEYS,
            "required": _KEYS,
            "ZONE_RESOURCE_POOL_EXHAUSTED": _PLACES,
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": _PLACES_OR_TEE,
            "STOCKOUT": _PLACES,
            "IP_SPACE_EXHAUSTED": _ADDRESSES,
            "IP_SPACE_EXHAUSTED_WITH_DETAILS": _ADDRESSES,
            "quotaExceeded": _QUOTA,
            "limitExceeded": _QUOTA,
            "QUOTA_EXCEEDED": _QUOTA,
            "rateLimitExceeded": _SLOWER,
            "userRateLimitExceeded": _SLOWER,
            "RATE_LIMIT_EXCEEDED": _SLOWER,
            "RESOURCE_NOT_FOUND": "see GCP_NETWORK, GCP_SUBNETWORK, GCP_DISK_TYPE and GCP_KMS_KEY",
            "UNSUPPORTED_OPERATION": "see GCP_CONFIDENTIAL_TYPE, GCP_MACHINE_TYPE and the zones",
            "INVALID_USAGE": "see GCP_CONFIDENTIAL_TYPE, GCP_MACHINE_TYPE and the zones",
            "conditionNotMet": "see the project's organisation policies",
        }
    ),
)
