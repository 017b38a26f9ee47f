"""The whole error tree on one screen; no other module defines an exception that crosses a package.

Each class says its RPC status (`code`, gRPC's numbers) and whether the same call may succeed later (`retryable`).
A message names what was wrong, the setting or annotation it came from, and what to do; it never holds a secret.
"""

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """gRPC status codes, as ttrpc's `google.rpc.Status.code` carries them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CaaError(Exception):
    """Base of every error of ours."""

    code: ClassVar[Code] = Code.INTERNAL
    retryable: ClassVar[bool] = False
    remedy: ClassVar[str] = ""  # what to do, where the class alone says it; else who tells the error knows


class InvalidInput(CaaError):
    """A request, annotation or document that can never work as it is."""

    code = Code.INVALID_ARGUMENT


class ConfigError(InvalidInput):
    """A setting: the message names its key, the value (redacted if secret) and what is allowed."""


class InitdataError(InvalidInput):
    """The initdata annotation or the `INITDATA` setting."""


class UserDataTooLarge(InvalidInput):
    """The user data would not fit the provider's limit; the message says which file takes how much."""


class NotFound(CaaError):
    """What was asked for does not exist."""

    code = Code.NOT_FOUND


class IllegalTransition(CaaError):
    """An event that the sandbox's phase does not allow."""

    code = Code.FAILED_PRECONDITION


class DeadlineExceeded(CaaError):
    """The caller's deadline, or our own bound, passed."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True


class Cancelled(CaaError):
    """The caller went away or a stop overtook the call."""

    code = Code.CANCELLED


class Unavailable(CaaError):
    """A process or service that should come back: relay, node, agent."""

    code = Code.UNAVAILABLE
    retryable = True


class NetworkError(CaaError):
    """The kernel refused a network operation, or a namespace is not as it has to be."""


class StateError(CaaError):
    """The state directory or the store cannot be used."""


class StepFailed(CaaError):
    """A step of a start failed. `cause` keeps the original error; the text names step, cause and remedy."""

    def __init__(self, message: str, *, code: Code, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the cause's status, per instance
        self.retryable = retryable  # type: ignore[misc]


class ProviderError(CaaError):
    """The only family a driver may raise."""


class InvalidRequest(ProviderError):
    """The cloud refuses the request as it is: unknown image, illegal size, bad parameter."""

    code = Code.INVALID_ARGUMENT


class InstanceTypeError(InvalidRequest):
    """No instance type fits, or the one asked for is not allowed."""

    remedy = (
        "see the pod's annotations io.katacontainers.config.hypervisor.machine_type, default_vcpus and default_memory, "
        "and the types that the driver's settings allow"
    )


class Misconfigured(ProviderError):
    """What the operator set cannot work in this cloud: the message names the setting and what to set it to."""

    code = Code.FAILED_PRECONDITION


class CredentialsError(ProviderError):
    """The cloud does not accept our credentials or our permissions."""

    code = Code.UNAUTHENTICATED


class CapacityError(ProviderError):
    """The cloud has no room now (zone, host, memory, disk): another type or zone may have."""

    code = Code.RESOURCE_EXHAUSTED
    retryable = True


class QuotaError(ProviderError):
    """Our own quota or limit is used up: only an operator can help."""

    code = Code.RESOURCE_EXHAUSTED


class ProviderUnavailable(ProviderError):
    """Throttled, or the API does not answer; it is not known whether something was made."""

    code = Code.UNAVAILABLE
    retryable = True


class Throttled(ProviderUnavailable):
    """Refused because we ask too often; nothing was done. `retry_after` is in seconds, 0 where it is not said."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Gone(ProviderError):
    """What the call names does not exist (any more, or not yet where a cloud is eventually consistent)."""

    code = Code.NOT_FOUND


class NotSupported(ProviderError):
    """This driver cannot do it, as its page says."""

    code = Code.UNIMPLEMENTED
