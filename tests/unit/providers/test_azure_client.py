"""Azure's errors into ours: by code, by status, by who said it, and what is left of the SDK's words."""

import asyncio
from typing import Any

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import CredentialUnavailableError

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
from providers.azure import client
from providers.azure.codes import CODES, meant
from providers.azure.refusals import STALE, of_error

ARM, AAD = "https://management.azure.com/subscriptions/s/x", "https://login.microsoftonline.com/t/oauth2/v2.0/token"


class Said:
    """An error as Azure writes it."""

    def __init__(self, code: str, message: str, details: tuple["Said", ...] = ()) -> None:
        self.code, self.message, self.details = code, message, details


class Answer:
    """An HTTP answer, as far as errors look at it."""

    def __init__(self, url: str, status: int, headers: dict[str, str] | None = None) -> None:
        self.request = type("Request", (), {"url": url})()
        self.status_code, self.headers, self.reason = status, headers or {}, "because"

    def body(self) -> bytes:
        return b""

    text = content_type = None


def refused(status: int, said: Said | None = None, *, kind: Any = HttpResponseError, **headers: str) -> Any:
    made = kind("words of the SDK")
    made.response = Answer(ARM, status, {key.replace("_", "-"): value for key, value in headers.items()})
    made.status_code, made.error, made.reason = status, said, "because"
    return made


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "AllocationFailed", CapacityError),
        (409, "ZonalAllocationFailed", CapacityError),
        (409, "SkuNotAvailable", CapacityError),
        (409, "QuotaExceeded", QuotaError),
        (400, "SubnetIsFull", QuotaError),
        (403, "AuthorizationFailed", CredentialsError),
        (403, "RequestDisallowedByPolicy", Misconfigured),
        (404, "ResourceGroupNotFound", Misconfigured),
        (404, "ResourceNotFound", Gone),
        (404, "GalleryImageNotFound", InvalidRequest),
        (400, "InvalidParameter", InvalidRequest),
        (409, "Conflict", ProviderUnavailable),
        (400, "NicReservedForAnotherVm", ProviderUnavailable),
        (500, "InternalServerError", ProviderUnavailable),
        (503, "SomethingNew", ProviderUnavailable),
        (401, "SomethingNew", CredentialsError),
        (403, "SomethingNew", CredentialsError),
        (400, "SomethingNew", ProviderError),
        (409, "ConflictingUserInput", ProviderError),
        (502, "", ProviderUnavailable),
        (404, "", ProviderUnavailable),
    ],
)
def test_each_answer_has_its_type_and_keeps_azures_words(status: int, code: str, kind: type[ProviderError]) -> None:
    """A 404 without a code comes from something between us and Azure: it is no proof that a VM is gone."""
    found = of_error("compute.virtual_machines.get", refused(status, Said(code, "Azure's words.")))
    assert type(found) is kind
    assert "Azure's words (compute.virtual_machines.get)" in str(found)
    assert str(found).startswith(code or f"HTTP {status}")


def test_a_put_that_found_something_is_told_by_its_status() -> None:
    found = of_error("x", refused(412, Said("Whatever", "exists"), kind=ResourceExistsError))
    assert str(found).startswith("PreconditionFailed")


def test_the_innermost_code_that_is_known_counts() -> None:
    inner = Said("ZonalAllocationFailed", "no room in zone 1")
    found = of_error("x", refused(409, Said("DeploymentFailed", "see details", (inner,))))
    assert type(found) is CapacityError
    assert "no room in zone 1" in str(found)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("", 0.0), ("-3", 0.0), ("Tue, 24 Nov 2026 10:00:00 GMT", 0.0)]
)
def test_retry_after(header: str, seconds: float) -> None:
    found = of_error("x", refused(429, Said("Strange", "slow down"), Retry_After=header))
    assert isinstance(found, Throttled)
    assert found.retry_after == seconds
    assert "CLOUD_CALLS_PER_SECOND" in str(found)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, CredentialsError), (401, CredentialsError), (429, Throttled), (503, ProviderUnavailable)]
)
def test_whoever_gives_tokens_may_be_busy(status: int, kind: type[ProviderError]) -> None:
    error = refused(status, kind=ClientAuthenticationError, Retry_After="4")
    error.response = Answer(AAD, status, {"Retry-After": "4"})
    found = of_error("x", error)
    assert type(found) is kind
    assert not isinstance(found, Throttled) or found.retry_after == 4


def test_resource_managers_own_401_is_a_token_that_it_does_not_take() -> None:
    said = Said("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time")
    found = of_error("x", refused(401, said, kind=ClientAuthenticationError))
    assert type(found) is CredentialsError
    assert str(found).startswith(STALE), "so that it is asked for anew"
    assert "clock" in str(found)


def test_the_chain_tells_what_a_node_can_have() -> None:
    said = (
        "DefaultAzureCredential failed to retrieve a token.\nAttempted credentials:\n"
        "\tEnvironmentCredential: not configured.\nVisit https://aka.ms/x to troubleshoot this issue.\n"
        "\tManagedIdentityCredential: no identity. See the troubleshooting guide for more information: https://aka.ms/y\n"
        "\tAzureCliCredential: Azure CLI not found on path"
    )
    found = of_error("x", CredentialUnavailableError(said))
    assert type(found) is CredentialsError
    assert str(found).startswith(
        "no token: EnvironmentCredential: not configured.; ManagedIdentityCredential: no identity; set AZURE_CLIENT_ID"
    )
    assert "https" not in str(found)


@pytest.mark.parametrize(
    "error", [ServiceRequestError("Cannot connect"), ServiceResponseError("timed out"), DecodeError("?")]
)
def test_no_answer_or_nobody_elses_is_worth_another_try(error: Exception) -> None:
    found = of_error("x", error)
    assert type(found) is ProviderUnavailable
    assert "AZURE_RESOURCE_MANAGER_ENDPOINT" in str(found)


def test_nothing_of_the_program_is_told() -> None:
    said = "Cannot connect to host x:443 ssl:<ssl.SSLContext object at 0x7f86cd16bbf0> [Connect call failed]"
    assert "host x:443 ssl:yes [Connect" in str(of_error("x", ServiceRequestError(said)))


def test_long_texts_are_cut() -> None:
    assert len(str(of_error("x", refused(400, Said("InvalidParameter", "a\n" * 5000))))) < 900


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("results in exceeding approved standardDCASv5Family Cores quota", QuotaError),
        ("This operation is not allowed since VM 'x' is marked for deletion", ProviderUnavailable),
        ("Disk x is attached to VM y", ProviderUnavailable),
    ],
)
def test_what_is_not_allowed_is_a_quota_or_busy(words: str, kind: type[ProviderError]) -> None:
    found = meant("OperationNotAllowed", words)
    assert type(found) is kind
    assert ("vCPU quota" in str(found)) == (kind is QuotaError)


def test_a_code_means_one_thing() -> None:
    sets = [CODES.capacity, CODES.quota, CODES.throttled, CODES.unavailable]
    sets += [CODES.unauthorised, CODES.misconfigured, CODES.invalid, CODES.gone]
    assert sum(map(len, sets)) == len(frozenset().union(*sets))
    assert CODES.remedies.keys() <= frozenset().union(*sets)


class TestForeignErrors:
    async def fail(self, error: BaseException) -> None:
        raise error

    @pytest.mark.parametrize("error", [ValueError("x"), TypeError(), KeyError("id"), AttributeError()])
    async def test_an_answer_that_the_sdk_stumbles_over(self, error: Exception) -> None:
        with pytest.raises(ProviderUnavailable, match="the answer is not Azure's"):
            await client.translated("x", self.fail(error))

    async def test_a_token_file_that_is_not_there(self) -> None:
        with pytest.raises(CredentialsError, match=r"no token: /t/token cannot be read.*AZURE_FEDERATED_TOKEN_FILE"):
            await client.translated("x", self.fail(FileNotFoundError(2, "No such file", "/t/token")))

    async def test_a_network_that_is_not_there(self) -> None:
        with pytest.raises(ProviderUnavailable, match="proxy"):
            await client.translated("x", self.fail(ConnectionRefusedError(111, "refused")))

    @pytest.mark.parametrize("error", [Gone("x"), asyncio.CancelledError()])
    async def test_ours_and_cancellations_pass(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught:
            await client.translated("x", self.fail(error))
        assert caught.value is error
