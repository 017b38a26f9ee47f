"""EC2's error codes by what they mean for us, and what to do about each. Data only; source: the EC2 API reference."""

from types import MappingProxyType

from caa.provider.capacity import ErrorCodes

DRY_RUN_PASSED = "DryRunOperation"
TOKEN_USED = "IdempotentParameterMismatch"  # noqa: S105  # an error code

_RIGHTS = "give the node's role the rights that docs/providers/aws.md lists"
_KEYS = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or the role of the node or its service "
    "account, and the node's clock"
)
_IMAGE = (
    "set PODVM_AMI_ID, or the pod's annotation io.katacontainers.config.hypervisor.image, to an image of this region"
)
_TYPE = "see PODVM_INSTANCE_TYPE and PODVM_INSTANCE_TYPES"

CODES = ErrorCodes(
    capacity=frozenset(
        {
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientCapacityOnHost",
            "InsufficientCapacity",
            "InsufficientFreeAddressesInSubnet",
            "InsufficientAddressCapacity",
            "SpotMaxPriceTooLow",
            "ReservationCapacityExceeded",
            "Unsupported",
        }
    ),
    quota=frozenset(
        {
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "AddressLimitExceeded",
            "NetworkInterfaceLimitExceeded",
            "VolumeLimitExceeded",
            "AttachmentLimitExceeded",
            "TagLimitExceeded",
        }
    ),
    throttled=frozenset(
        {
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "EC2ThrottledException",
            "RequestThrottled",
            "TooManyRequestsException",
        }
    ),
    unavailable=frozenset(
        {
            "InternalError",
            "InternalFailure",
            "ServiceUnavailable",
            "Unavailable",
            "Server.InternalError",
            "ServiceException",
        }
    ),
    unauthorised=frozenset(
        {
            "UnauthorizedOperation",
            "AuthFailure",
            "AccessDenied",
            "AccessDeniedException",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "OptInRequired",
            "PendingVerification",
            "Blocked",
            "InvalidIdentityToken",
        }
    ),
    misconfigured=frozenset(
        {
            "InvalidSubnetID.NotFound",
            "InvalidSubnet",
            "InvalidGroup.NotFound",
            "InvalidGroupId.Malformed",
            "InvalidSecurityGroupID.NotFound",
            "InvalidKeyPair.NotFound",
            "InvalidLaunchTemplateName.NotFoundException",
            "InvalidLaunchTemplateId.NotFound",
            "InvalidIamInstanceProfileArn.Malformed",
            "InvalidPlacementGroup.Unknown",
            "InvalidHostID.NotFound",
            "InvalidCapacityReservationId.NotFound",
            "InvalidKmsKeyId",
            "KmsKeyNotFound",
        }
    ),
    invalid=frozenset(
        {
            "InvalidAMIID.NotFound",
            "InvalidAMIID.Malformed",
            "InvalidAMIID.Unavailable",
            "InvalidInstanceType",
            "InvalidParameter",
            "InvalidParameterValue",
            "InvalidParameterCombination",
            "InvalidBlockDeviceMapping",
            "InvalidUserData.Malformed",
            "InvalidVolume.NotFound",
            "InvalidVolume.ZoneMismatch",
            "VolumeInUse",
            "IncorrectState",
            "UnsupportedOperation",
            "MissingParameter",
            "UnknownParameter",
            "InvalidInstanceID.Malformed",
            TOKEN_USED,
        }
    ),
    gone=frozenset(
        {
            "InvalidInstanceID.NotFound",
            "InvalidAllocationID.NotFound",
            "InvalidAssociationID.NotFound",
            "InvalidAddressID.NotFound",
            "InvalidAddress.NotFound",
            "InvalidNetworkInterfaceID.NotFound",
        }
    ),
    remedies=MappingProxyType(
        {
            "UnauthorizedOperation": _RIGHTS,
            "AccessDenied": _RIGHTS,
            "AccessDeniedException": _RIGHTS,
            "AuthFailure": _KEYS,
            "InvalidClientTokenId": _KEYS,
            "SignatureDoesNotMatch": _KEYS,
            "ExpiredToken": _KEYS,
            "ExpiredTokenException": _KEYS,
            "RequestExpired": _KEYS,
            "RequestTimeTooSkewed": "set the node's clock",
            "OptInRequired": "the account has to subscribe to EC2, or to the image's product, first",
            "InvalidIdentityToken": "check AWS_WEB_IDENTITY_TOKEN_FILE, and the trust policy of AWS_ROLE_ARN",
            "InsufficientInstanceCapacity": "name more types in FALLBACK_TYPES or more subnets in FALLBACK_ZONES",
            "InsufficientFreeAddressesInSubnet": "name more subnets in FALLBACK_ZONES, or take a larger AWS_SUBNET_ID",
            "Unsupported": f"{_TYPE}, and the zones of AWS_SUBNET_ID and FALLBACK_ZONES",
            "VcpuLimitExceeded": "ask AWS to raise the account's vCPU quota of this family in this region",
            "InstanceLimitExceeded": "ask AWS to raise the account's quota of this type in this region",
            "MaxSpotInstanceCountExceeded": "ask AWS for more spot requests, or add on-demand to PURCHASE_OPTIONS",
            "AddressLimitExceeded": "ask AWS for more Elastic IPs, or set USE_PUBLIC_IP=false",
            "RequestLimitExceeded": "lower CLOUD_CALLS_PER_SECOND: the limit is the account's, not the node's",
            "InvalidSubnetID.NotFound": "see AWS_SUBNET_ID and FALLBACK_ZONES",
            "InvalidGroup.NotFound": "see AWS_SG_IDS",
            "InvalidGroupId.Malformed": "see AWS_SG_IDS",
            "InvalidSecurityGroupID.NotFound": "see AWS_SG_IDS",
            "InvalidKeyPair.NotFound": "see SSH_KP_NAME",
            "InvalidLaunchTemplateName.NotFoundException": "see PODVM_LAUNCHTEMPLATE_NAME",
            "InvalidIamInstanceProfileArn.Malformed": "see AWS_INSTANCE_PROFILE",
            "InvalidPlacementGroup.Unknown": "see AWS_PLACEMENT_GROUP",
            "InvalidHostID.NotFound": "see AWS_DEDICATED_HOST_ID",
            "InvalidCapacityReservationId.NotFound": "see AWS_CAPACITY_RESERVATION_ID",
            "InvalidKmsKeyId": "see AWS_KMS_KEY_ID",
            "InvalidAMIID.NotFound": _IMAGE,
            "InvalidAMIID.Malformed": _IMAGE,
            "InvalidAMIID.Unavailable": _IMAGE,
            "InvalidInstanceType": _TYPE,
            "InvalidVolume.NotFound": "the volume behind the pod's claim is not in this region",
        }
    ),
)
