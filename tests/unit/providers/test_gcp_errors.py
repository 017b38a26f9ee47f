"""What Google's refusals become: a type of ours, Google's own code and words, and what to do about it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from caa.errors import (
    CapacityError,
    CredentialsError,
    Gone,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)
from providers.gcp.client import failed, of_rest, of_sdk


@dataclass
class Answer:
    """As much of `requests`' as is read."""

    status_code: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        if self.body is None:
            raise ValueError("no JSON")
        return self.body


def plain(status: int, reason: str, words: str = "Words of Google.") -> Answer:
    """As Compute Engine writes it."""
    errors = [{"domain": "global", "reason": reason, "message": words}]
    return Answer(status, {"error": {"code": status, "message": words, "errors": errors}})


def newer(status: int, name: str, reason: str = "") -> Answer:
    """As Resource Manager writes it."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    details = [{"@type": "type.googleapis.com/google.rpc.Help"}, *([info] if reason else [])]
    return Answer(
        status, {"error": {"code": status, "message": "Words of Google.", "status": name, "details": details}}
    )


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (plain(400, "invalid"), InvalidRequest, "invalid: Words of Google (X.y)"),
        (plain(400, "badRequest"), InvalidRequest, "badRequest: "),
        (plain(400, "resourceInUseByAnotherResource"), InvalidRequest, "resourceInUse"),
        (plain(401, "authError"), CredentialsError, "GCP_CREDENTIALS"),
        (plain(403, "forbidden"), CredentialsError, "docs/providers/gcp.md"),
        (plain(403, "insufficientPermissions"), CredentialsError, "docs/providers/gcp.md"),
        (plain(403, "accessNotConfigured"), CredentialsError, "enable this API in GCP_PROJECT_ID"),
        (plain(403, "quotaExceeded"), QuotaError, "raise the project's quota"),
        (plain(403, "rateLimitExceeded"), Throttled, "CLOUD_CALLS_PER_SECOND"),
        (plain(403, "userRateLimitExceeded"), Throttled, "CLOUD_CALLS_PER_SECOND"),
        (plain(404, "notFound"), Gone, "notFound: Words of Google (X.y)"),
        (plain(409, "alreadyExists"), InvalidRequest, "alreadyExists: "),
        (plain(412, "conditionNotMet"), Misconfigured, "organisation policies"),
        (plain(429, "rateLimitExceeded"), Throttled, "CLOUD_CALLS_PER_SECOND"),
        (plain(429, "aNewReason"), Throttled, "CLOUD_CALLS_PER_SECOND"),
        (plain(500, "backendError"), ProviderUnavailable, "backendError"),
        (plain(503, "aNewReason"), ProviderUnavailable, "aNewReason"),
        (plain(418, "teapot"), ProviderError, "teapot: "),
        (newer(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"), CredentialsError, "docs/providers/gcp.md"),
        (newer(403, "PERMISSION_DENIED", "SERVICE_DISABLED"), CredentialsError, "enable this API"),
        (newer(403, "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"), CredentialsError, "cloud-platform"),
        (newer(403, "PERMISSION_DENIED"), CredentialsError, "forbidden: "),
        (newer(404, "NOT_FOUND"), Gone, "notFound: "),
        (newer(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"), Throttled, "CLOUD_CALLS_PER_SECOND"),
        (Answer(502, None), ProviderUnavailable, "HTTP 502: no error that Google's API writes"),
        (Answer(403, None), CredentialsError, "forbidden: no error that Google's API writes"),
        (Answer(503, {"error": "down"}), ProviderUnavailable, "HTTP 503"),
        (Answer(503, ["down"]), ProviderUnavailable, "HTTP 503"),
        (Answer(302, None), ProviderError, "HTTP 302"),
    ],
)
def test_a_refused_call(answer: Answer, kind: type[ProviderError], told: str) -> None:
    error = of_rest("X.y", answer)
    assert type(error) is kind
    assert told in str(error)


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2026", 0.0)])
def test_how_long_to_wait(text: str, seconds: float) -> None:
    answer = plain(429, "rateLimitExceeded")
    answer.headers["retry-after"] = text
    error = of_rest("X.y", answer)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", CapacityError, "FALLBACK_ZONES"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", CapacityError, "a zone that lacks the TEE says the same"),
        ("STOCKOUT", CapacityError, "FALLBACK_TYPES"),
        ("IP_SPACE_EXHAUSTED", CapacityError, "larger GCP_SUBNETWORK"),
        ("QUOTA_EXCEEDED", QuotaError, "raise the project's quota"),
        ("RESOURCE_NOT_FOUND", Misconfigured, "GCP_NETWORK"),
        ("UNSUPPORTED_OPERATION", Misconfigured, "GCP_CONFIDENTIAL_TYPE"),
        ("PERMISSIONS_ERROR", CredentialsError, "docs/providers/gcp.md"),
        ("INTERNAL_ERROR", ProviderUnavailable, "INTERNAL_ERROR: Words"),
        ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", InvalidRequest, "RESOURCE_IN_USE"),
        ("A_NEW_CODE", ProviderError, "A_NEW_CODE: Words"),
    ],
)
def test_an_operation_that_failed(code: str, kind: type[ProviderError], told: str) -> None:
    error = failed("Instances.insert", {"error": {"errors": [{"code": code, "message": "Words of Google."}]}})
    assert type(error) is kind
    assert told in str(error)
    assert "(Instances.insert)" in str(error)


def test_an_operation_that_went_well() -> None:
    assert failed("Instances.insert", {"status": "DONE"}) is None
    assert failed("Instances.insert", {"status": "DONE", "error": {"errors": []}}) is None


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (TransportError("connection refused"), ProviderUnavailable, "no answer (TransportError)"),
        (ConnectionResetError(), ProviderUnavailable, "GCP_COMPUTE_ENDPOINT"),
        (TimeoutError(), ProviderUnavailable, "no answer (TimeoutError)"),
        (RefreshError("invalid_grant: Invalid JWT", {"token": "s3cret"}), CredentialsError, "invalid_grant"),
        (RefreshError("busy", retryable=True), ProviderUnavailable, "no token (RefreshError)"),
        (DefaultCredentialsError("none\nfound"), CredentialsError, "none; set GCP_CREDENTIALS"),
        (ValueError("bad JSON s3cret"), ProviderUnavailable, "the answer is not Google's (ValueError)"),
        (RuntimeError("s3cret"), ProviderError, "Google X.y: RuntimeError"),
    ],
)
def test_what_the_library_raises(error: Exception, kind: type[ProviderError], told: str) -> None:
    """The text of an error may hold a token; only the first words of one about credentials are told."""
    ours = of_sdk("X.y", error)
    assert type(ours) is kind
    assert told in str(ours)
    assert "s3cret" not in str(ours)
