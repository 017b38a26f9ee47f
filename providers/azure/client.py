"""The only file that imports Azure's SDK: calls paced and repeated, operations by token, every error translated."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from caa.errors import CredentialsError, Misconfigured, ProviderError, ProviderUnavailable
from caa.provider.pacing import Pacing
from caa.provider.waiting import to_the_end
from providers.azure.refusals import KEYS, NETWORK, STALE, of_error

T = TypeVar("T")

Resource = Mapping[str, Any]  # in the shape of the REST API, camelCase

_BAD = 400
_OF_CERTIFICATES = ("deserialize", "The certificate must", "Malformed")  # words of the SDK about one that does not do
_CONSOLE_LIMIT = 1 << 20


class Arm(Protocol):
    """Azure Resource Manager as the driver sees it. Operations are named like `compute.virtual_machines.get`.

    Raises `ProviderError` subclasses only.
    """

    async def read(self, operation: str, *where: str, subscription: str = "", **options: Any) -> Resource:
        """One resource, of our subscription or of another one."""

    async def pages(self, operation: str, *where: str, **options: Any) -> list[Resource]:
        """Every resource of a listing, a call a page."""

    async def begin(self, operation: str, *where: Any, only_new: bool = False, **options: Any) -> str:
        """Begin a long-running operation; returns its token, "" when it was done at once. `only_new` changes nothing
        that exists."""

    async def outcome(self, operation: str, *where: Any, token: str) -> bool:
        """Whether the operation of that token has succeeded; False while it runs. Raises what it failed with."""

    async def listing(self, path: str, *, version: str) -> list[Resource]:
        """Every resource that Resource Manager lists at this path, for what has no client of its own."""

    async def fetch(self, url: str) -> bytes:
        """What is behind a signed URL, its last MiB."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach Azure. `scope` is the audience of tokens; without secret and token file the SDK's chain is asked."""

    subscription: str
    endpoint: str
    authority: str
    scope: str
    client_id: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    tenant: str = field(default="", repr=False)
    token_file: Path | None = None
    own_authority: bool = False
    ca: Path | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 30.0


class _Clients:
    """The SDK's clients of one identity."""

    def __init__(self, access: Access) -> None:
        from azure.mgmt.compute.aio import ComputeManagementClient
        from azure.mgmt.network.aio import NetworkManagementClient

        self.credential = credential(access)
        options: dict[str, Any] = {
            "base_url": access.endpoint,
            "credential_scopes": [access.scope],
            "retry_total": 0,  # `Pacing` repeats, and counts every call
            "connection_timeout": access.connect_timeout,
            "read_timeout": access.read_timeout,
            "connection_verify": str(access.ca) if access.ca else True,
            "user_agent": "peerpods-caa",
            "polling_interval": 1,
        }
        self._make = {
            "compute": partial(ComputeManagementClient, self.credential, **options),
            "network": partial(NetworkManagementClient, self.credential, **options),
        }
        self._own = access.subscription
        self._made: dict[tuple[str, str], Any] = {}

    def client(self, service: str, subscription: str = "") -> Any:
        """The SDK's client, made once for each subscription."""
        key = service, subscription.lower() or self._own.lower()
        if key not in self._made:
            self._made[key] = self._make[service](subscription or self._own)
        return self._made[key]

    def method(self, operation: str, subscription: str = "") -> Callable[..., Any]:
        service, group, name = operation.split(".")
        found: Callable[..., Any] = getattr(getattr(self.client(service, subscription), group), name)
        return found

    async def close(self) -> None:
        for one in (*self._made.values(), self.credential):
            await one.close()


class Sdk:
    """`Arm` over the SDK's asynchronous clients. They are made with the first call, and again when Azure refuses our
    token: secrets and token files may have been exchanged since."""

    def __init__(self, access: Access, pacing: Pacing) -> None:
        self._access = access
        self._pacing = pacing
        self._clients: _Clients | None = None
        self._old: list[_Clients] = []

    async def read(self, operation: str, *where: str, subscription: str = "", **options: Any) -> Resource:
        async def once(clients: _Clients) -> Resource:
            return _plain(await clients.method(operation, subscription)(*where, **options))

        return await self._call(operation, once)

    async def pages(self, operation: str, *where: str, **options: Any) -> list[Resource]:
        found: list[Resource] = []
        token: str | None = None
        while True:
            page, token = await self._page(operation, where, options=options, token=token)
            found += page
            if not token:
                return found

    async def begin(self, operation: str, *where: Any, only_new: bool = False, **options: Any) -> str:
        from azure.core import MatchConditions

        if only_new:
            options["match_condition"] = MatchConditions.IfMissing

        async def once(clients: _Clients) -> str:
            poller = await clients.method(operation)(*where, **options)
            return "" if poller.done() or poller.polling_method().finished() else str(poller.continuation_token())

        async def whole(clients: _Clients) -> str:
            return await to_the_end(once(clients))

        return await self._call(operation, whole)

    async def outcome(self, operation: str, *where: Any, token: str) -> bool:
        async def once(clients: _Clients) -> bool:
            poller = await clients.method(operation)(*where, continuation_token=token)
            method = poller.polling_method()
            if not method.finished():
                await _look(method)
            if not method.finished():
                return False
            if method.status().lower() != "succeeded":
                await poller.result()  # raises the operation's own error
            return True

        return await self._call(operation, once)

    async def listing(self, path: str, *, version: str) -> list[Resource]:
        found: list[Resource] = []
        url = f"{self._access.endpoint}{path}?api-version={version}"
        while url.startswith(f"{self._access.endpoint}/"):  # nobody else gets our token
            page = await self._call(path.rpartition("/")[2], partial(_document, url))
            found += page.get("value") or ()
            url = str(page.get("nextLink") or "")
        return found

    async def fetch(self, url: str) -> bytes:
        """No token is sent: the URL is signed."""
        return await translated("console", self._fetched(url))

    async def _fetched(self, url: str) -> bytes:
        from azure.core import AsyncPipelineClient
        from azure.core.rest import HttpRequest

        verify = str(self._access.ca) if self._access.ca else True
        options = {"connection_verify": verify, "read_timeout": self._access.read_timeout}
        async with AsyncPipelineClient("", policies=[], **options) as client:
            answer = await client.send_request(HttpRequest("GET", url))
            answer.raise_for_status()
            log: bytes = answer.content
            return log[-_CONSOLE_LIMIT:]

    async def close(self) -> None:
        """Let go of connections; a later call opens them again."""
        clients, self._clients = self._clients, None
        old, self._old = self._old, []
        for one in [*old, *([clients] if clients else [])]:
            await one.close()

    async def _page(
        self, operation: str, where: tuple[str, ...], *, options: Mapping[str, Any], token: str | None
    ) -> tuple[list[Resource], str | None]:
        async def once(clients: _Clients) -> tuple[list[Resource], str | None]:
            pages = clients.method(operation)(*where, **options).by_page(continuation_token=token)
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                return [], None
            return [_plain(one) async for one in page], pages.continuation_token

        return await self._call(operation, once)

    async def _call(self, operation: str, once: Callable[[_Clients], Awaitable[T]]) -> T:
        clients = await self._ready()
        try:
            return await self._pacing.call(lambda: translated(operation, once(clients)))
        except CredentialsError as error:
            if not str(error).startswith(STALE):
                raise
            if self._clients is clients:
                self._old.append(clients)
                self._clients = None
        fresh = await self._ready()
        return await self._pacing.call(lambda: translated(operation, once(fresh)))

    async def _ready(self) -> _Clients:
        if self._clients is None:
            await asyncio.to_thread(_imported)  # half a second, in which the node's sockets go on answering
        if self._clients is None:
            self._clients = _made(self._access)
        return self._clients


async def _look(method: Any) -> None:
    """One look at an operation. The SDK's own errors for a bad answer are no `AzureError`s."""
    from azure.core.exceptions import HttpResponseError
    from azure.core.polling.base_polling import BadResponse, BadStatus
    from azure.mgmt.core.exceptions import ARMErrorFormat

    try:
        await method.update_status()
    except BadStatus:
        answer = method._pipeline_response.http_response
        raise HttpResponseError(response=answer, error_format=ARMErrorFormat) from None
    except BadResponse as error:
        raise ValueError(str(error)) from None


async def _document(url: str, clients: _Clients) -> Resource:
    from azure.core.exceptions import HttpResponseError
    from azure.core.rest import HttpRequest
    from azure.mgmt.core.exceptions import ARMErrorFormat

    answer = await clients.client("compute").send_request(HttpRequest("GET", url))
    if answer.status_code >= _BAD:
        raise HttpResponseError(response=answer, error_format=ARMErrorFormat)
    found: Resource = dict(answer.json())
    return found


def _imported() -> None:
    logging.getLogger("azure.identity").setLevel(logging.ERROR)  # a warning a call, of what our error says once
    import azure.identity.aio
    import azure.mgmt.compute.aio
    import azure.mgmt.network.aio  # noqa: F401  # imported for later calls, which find them loaded


def _made(access: Access) -> _Clients:
    """The clients. Raises `Misconfigured` and `CredentialsError` for what the SDK would not even begin with."""
    try:
        if access.ca:
            ssl.create_default_context(cafile=access.ca)
    except OSError as error:
        raise Misconfigured(f"AZURE_CA_BUNDLE: {access.ca} has no certificates ({type(error).__name__})") from None
    try:
        return _Clients(access)
    except (OSError, ValueError) as error:  # of the certificate that the environment names
        why = f"no token: {str(error).rstrip('.')[:200]}; see AZURE_CLIENT_CERTIFICATE_PATH"
        raise CredentialsError(f"{why}, or {KEYS}") from None


def credential(access: Access) -> Any:
    """Who we are, as the SDK's object: a service principal, a workload identity, or whatever the SDK's chain finds."""
    from azure.identity.aio import ClientSecretCredential, DefaultAzureCredential, WorkloadIdentityCredential

    common: dict[str, Any] = {
        "authority": access.authority,
        "disable_instance_discovery": access.own_authority,
        "connection_verify": str(access.ca) if access.ca else True,
        "connection_timeout": access.connect_timeout,
        "read_timeout": access.read_timeout,  # the SDK's own is 300 s
        "retry_total": 1,
    }
    if access.secret:
        return ClientSecretCredential(access.tenant, access.client_id, access.secret, **common)
    if access.token_file:
        return WorkloadIdentityCredential(
            tenant_id=access.tenant, client_id=access.client_id, token_file_path=str(access.token_file), **common
        )
    # PowerShell's is left out: it starts a shell for each try.
    common |= {"managed_identity_client_id": access.client_id or None, "exclude_powershell_credential": True}
    try:
        return DefaultAzureCredential(**common)
    except ValueError as error:
        if any(word in str(error) for word in _OF_CERTIFICATES):
            raise
        # The SDK takes a key of the environment that is empty, as a ConfigMap's may be, for a value.
        return DefaultAzureCredential(exclude_environment_credential=True, **common)


def _plain(found: Any) -> Resource:
    shaped: Resource = found.as_dict() if found is not None else {}
    return shaped


async def translated(operation: str, work: Awaitable[T]) -> T:
    """The result of `work`, or our error for the SDK's."""
    from azure.core.exceptions import AzureError

    try:
        return await work
    except ProviderError:
        raise
    except AzureError as error:
        raise of_error(operation, error) from None
    except (OSError, TimeoutError) as error:
        if getattr(error, "filename", None):
            why = f"no token: {error.filename} cannot be read ({type(error).__name__})"
            raise CredentialsError(f"{why}; see AZURE_FEDERATED_TOKEN_FILE") from None
        raise ProviderUnavailable(f"Azure {operation}: {type(error).__name__}; {NETWORK}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # The SDK's own parsing of an answer that is not Azure's.
        raise ProviderUnavailable(
            f"Azure {operation}: the answer is not Azure's ({type(error).__name__}); {NETWORK}"
        ) from None
