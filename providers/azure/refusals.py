"""Pure: what an error of Azure's SDK says, as ours. The SDK is not imported, its errors are known by what they have."""

import contextlib
import re
from typing import Any

from caa.errors import CredentialsError, ProviderError, ProviderUnavailable, Throttled
from providers.azure.codes import CODES, meant

NETWORK = "if it stays so, see the node's network, its proxy, AZURE_RESOURCE_MANAGER_ENDPOINT and AZURE_AUTHORITY_HOST"
_CERTIFICATES = "name the certificates of whoever signed it in AZURE_CA_BUNDLE, or correct the endpoint"
STALE = ("InvalidAuthenticationToken", "ExpiredAuthenticationToken", "AuthenticationFailed", "no token")  # of a token
_AUTHORITY = "if it stays so, see the node's network, its proxy and AZURE_AUTHORITY_HOST"
KEYS = (
    "set AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or give the node or its service account an identity"
)
_SERVER_ERROR, _TOO_MANY, _UNAUTHORISED, _FORBIDDEN, _EXISTS = 500, 429, 401, 403, 412
_TEXT_LIMIT = 600  # characters of a cloud's words in an error
_OF_PEOPLE = ("SharedTokenCache", "VisualStudioCode", "AzureCli", "AzurePowerShell", "AzureDeveloperCli")
_CONTEXT = re.compile(r"<ssl\.SSLContext object at 0x[0-9a-f]+>")
_LINKS = re.compile(r"See the troubleshooting guide for more information: \S+")


def of_error(operation: str, error: Any) -> ProviderError:
    """Our error for the SDK's: by Azure's code where there is one, else by the HTTP status, else no answer came."""
    name = type(error).__name__
    status = int(getattr(error, "status_code", None) or 0)
    if name in ("CredentialUnavailableError", "ClientAuthenticationError") and _is_of_identity(error):
        return _of_identity(error, status)
    if name == "DecodeError":
        return ProviderUnavailable(f"Azure {operation}: the answer is not Azure's; {NETWORK}")
    if not status:
        told = _CERTIFICATES if "CERTIFICATE_VERIFY_FAILED" in str(error) else NETWORK
        return ProviderUnavailable(f"Azure {operation}: {_short(error)}; {told}")
    code, words = _code_of(error)
    return _by_status(status, f"{words} ({operation})", code=code, retry_after=_seconds(error))


def _of_identity(error: Any, status: int) -> ProviderError:
    """Our error for whoever gives tokens: being busy or broken is no refusal."""
    if status == _TOO_MANY:
        busy = f"the authority that gives tokens is busy: {_short(error)}; {_AUTHORITY}"
        return Throttled(busy, retry_after=_seconds(error))
    if status >= _SERVER_ERROR:
        return ProviderUnavailable(f"the authority that gives tokens: {_short(error)}; {_AUTHORITY}")
    return CredentialsError(f"no token: {_short(error)}; {KEYS}")


def _by_status(status: int, message: str, *, code: str, retry_after: float) -> ProviderError:
    if status == _TOO_MANY:
        known = code if code in CODES.throttled else "TooManyRequests"
        return meant(known, message, retry_after=retry_after)
    if status == _EXISTS:
        code = "PreconditionFailed"
    found = meant(code or f"HTTP {status}", message, retry_after=retry_after)
    if type(found) is not ProviderError:
        return found
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return CredentialsError(f"{found}; {KEYS}")
    if status >= _SERVER_ERROR or not code:
        return ProviderUnavailable(f"{found}; {NETWORK}")
    return found


def of_status(code: str, message: str) -> ProviderError:
    """Our error for what an instance view or an operation says of a VM that failed."""
    return meant(code, " ".join(message.split())[:_TEXT_LIMIT])


def _code_of(error: Any) -> tuple[str, str]:
    """The innermost code that we know, with its words: Azure wraps some errors in others."""
    found = getattr(error, "error", None)
    code, words = str(getattr(found, "code", "") or ""), str(getattr(found, "message", "") or "")
    known = CODES.capacity | CODES.quota | CODES.unauthorised | CODES.misconfigured | CODES.invalid | CODES.unavailable
    for inner in getattr(found, "details", None) or ():
        if code not in known and inner.code in known:
            code, words = str(inner.code), str(inner.message or "")
    return code, " ".join((words or str(getattr(error, "reason", ""))).split()).rstrip(". ")[:_TEXT_LIMIT]


def _is_of_identity(error: Any) -> bool:
    """Whether it came from whoever gives tokens, not from Resource Manager."""
    url = getattr(getattr(getattr(error, "response", None), "request", None), "url", "")
    return "/subscriptions/" not in str(url)


def _short(error: Any) -> str:
    said = str(getattr(error, "message", "") or error)
    attempts = [one.strip() for one in said.splitlines() if one.startswith("\t")]
    if attempts:  # the SDK's chain: what a person logs in with is no news on a node
        said = "; ".join(_LINKS.sub("", one).strip() for one in attempts if not one.startswith(_OF_PEOPLE))
    return " ".join(_CONTEXT.sub("yes", said).split()).rstrip(". ")[:_TEXT_LIMIT]


def _seconds(error: Any) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, float(headers.get("Retry-After") or 0))
    return 0.0  # a date
