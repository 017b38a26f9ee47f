"""The only file that imports Google's SDK: calls in threads, paced and repeated, every foreign error translated.

`insert(...).result()` of the SDK polls with a client of its own, which ignores an overridden endpoint; so operations
are made by `insert_unary` and `delete_unary` and awaited with our own `ZoneOperationsClient`.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from caa.errors import ConfigError, CredentialsError, Misconfigured, ProviderError, ProviderUnavailable
from caa.provider.capacity import classified
from caa.provider.pacing import Pacing
from caa.provider.threads import Threads
from caa.provider.waiting import to_the_end
from providers.gcp.codes import CODES

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_NETWORK = "if it stays so, see the node's network, its proxy and GCP_COMPUTE_ENDPOINT"
_CREDENTIALS = (
    "set GCP_CREDENTIALS, or give the node or its service account an identity (GKE workload identity, "
    "GOOGLE_APPLICATION_CREDENTIALS)"
)
_HOSTS = 4  # that one client may ask: the endpoint, and where a proxy sends it
_UNIVERSE = "googleapis.com"
_KINDS = ("service_account", "external_account", "authorized_user")
_BY_STATUS: Mapping[int, str] = MappingProxyType(
    {
        400: "badRequest",
        401: "authError",
        403: "forbidden",
        404: "notFound",
        409: "alreadyExists",
        429: "rateLimitExceeded",
    }
)
_SERVER_ERROR = 500

Reply = Mapping[str, Any]


class Gce(Protocol):
    """Compute Engine and Resource Manager as the driver sees them. Raises `ProviderError` subclasses only."""

    async def call(self, service: str, method: str, *, tries: int = 5, **parameters: Any) -> Reply:
        """One call, by the SDK's names; parameters and replies in the form of REST. May be sent more than once."""

    async def pages(self, service: str, method: str, **parameters: Any) -> list[Reply]:
        """All pages of a list."""

    async def resource_manager(self, path: str, *, body: Reply | None = None, **query: str) -> Reply:
        """GET of Resource Manager's v3, or POST where there is a body."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach Google. Without `credentials` the SDK's whole chain is asked."""

    credentials: str = field(default="", repr=False)
    project: str
    compute: str = ""
    resource_manager: str = ""
    universe: str = _UNIVERSE
    read_timeout: float = 30.0
    wait_timeout: float = 60.0
    connections: int = 16  # that are kept, of each client: as many as threads may use it


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Threads for calls, and others for those that wait: they must not stand in each other's way."""

    calls: Threads
    waits: Threads


class Sdk:
    """`Gce` over google-cloud-compute. Clients are made with the first call, and again when the credentials that are
    set change or Google refuses them: files and tokens may have been exchanged since."""

    def __init__(self, access: Callable[[], Access], pacing: Pacing, *, workers: Workers) -> None:
        self._access = access
        self._pacing = pacing
        self._workers = workers
        self._kept: tuple[Access, _Clients] | None = None

    async def call(self, service: str, method: str, *, tries: int = 5, **parameters: Any) -> Reply:
        return await self._paced(_Call(service, method, parameters), tries=tries)

    async def pages(self, service: str, method: str, **parameters: Any) -> list[Reply]:
        found = [await self.call(service, method, max_results=500, **parameters)]
        while token := found[-1].get("nextPageToken"):
            found.append(await self.call(service, method, max_results=500, page_token=token, **parameters))
        return found

    async def resource_manager(self, path: str, *, body: Reply | None = None, **query: str) -> Reply:
        return await self._paced(_Call("ResourceManager", path, {"body": body, "query": query}))

    async def close(self) -> None:
        """Connections close with the clients; threads end with what they are doing."""
        self._kept = None
        self._workers.calls.close()
        self._workers.waits.close()

    async def _paced(self, call: "_Call", *, tries: int = 5) -> Reply:
        try:
            return await self._pacing.call(lambda: self._once(call), tries=tries)
        except CredentialsError:
            if self._kept is None:
                raise
            self._kept = None
        return await self._pacing.call(lambda: self._once(call), tries=tries)

    async def _once(self, call: "_Call") -> Reply:
        """What changes something goes on to its end when the caller is cancelled, so that an undo finds what it did."""
        access = self._access()
        work = self._threads(call).run(lambda: self._blocking(call, access))
        return await (to_the_end(work) if call.changes else work)

    def _threads(self, call: "_Call") -> Threads:
        return self._workers.waits if call.method == "wait" else self._workers.calls

    def _blocking(self, call: "_Call", access: Access) -> Reply:
        try:
            return call.send(self._clients(access), access)
        except ProviderError:
            raise
        except Exception as error:
            raise of_sdk(call.name, error) from error

    def _clients(self, access: Access) -> "_Clients":
        kept = self._kept
        if kept is None or kept[0] != access:
            kept = self._kept = (access, _made(access))
        return kept[1]


@dataclass(frozen=True, slots=True)
class _Call:
    service: str
    method: str
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.service}.{self.method.removesuffix('_unary')}"

    @property
    def changes(self) -> bool:
        return self.method.endswith("_unary")

    def send(self, clients: "_Clients", access: Access) -> Reply:
        if self.service == "ResourceManager":
            return clients.resource_manager(self.method, self.parameters, access=access)
        return clients.compute(self, access)


class _Clients:
    """The SDK's clients with one set of credentials."""

    def __init__(self, access: Access) -> None:
        self._credentials = credentials(access)
        self._made: dict[str, Any] = {}
        self._session: Any = None

    def compute(self, call: _Call, access: Access) -> Reply:
        from google.cloud import compute_v1
        from google.protobuf import json_format

        client = self._made.get(call.service)
        if client is None:
            client = self._made[call.service] = self._client(getattr(compute_v1, f"{call.service}Client"), access)
        parameters = {"project": access.project, **call.parameters}
        if body := parameters.pop("body", None):
            parameters["instance_resource"] = compute_v1.Instance.from_json(json.dumps(body))
        timeout = access.wait_timeout if call.method == "wait" else access.read_timeout
        answer = getattr(client, call.method)(request=parameters, retry=None, timeout=timeout)
        message = next(iter(answer.pages)) if hasattr(answer, "pages") else answer
        found: Reply = json_format.MessageToDict(type(message).pb(message))
        return found

    def resource_manager(self, path: str, parameters: Reply, *, access: Access) -> Reply:
        from google.auth.transport.requests import AuthorizedSession

        if self._session is None:
            self._session = _with_room(AuthorizedSession(self._credentials), access)
        host = access.resource_manager or f"https://cloudresourcemanager.{access.universe}"
        body = parameters["body"]
        answer = self._session.request(
            "GET" if body is None else "POST",
            f"{host.rstrip('/')}/v3/{path}",
            params=parameters["query"],
            json=body,
            timeout=access.read_timeout,
        )
        if answer.status_code != 200:
            raise of_rest(f"ResourceManager.{path.rpartition(':')[2]}", answer)
        found: Reply = answer.json()
        return found

    def _client(self, kind: Any, access: Access) -> Any:
        from google.api_core.client_options import ClientOptions

        options = ClientOptions(api_endpoint=access.compute or None, universe_domain=access.universe)
        made = kind(credentials=self._credentials, client_options=options)
        _with_room(made.transport._session, access)
        return made


def _made(access: Access) -> _Clients:
    """Clients. Raises `CredentialsError`, which never holds the text, for credentials that cannot be read."""
    try:
        return _Clients(access)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if not access.credentials:
            raise
        raise CredentialsError(
            f"GCP_CREDENTIALS is not complete or not valid ({type(error).__name__}): paste the whole key file"
        ) from None


def _with_room(session: Any, access: Access) -> Any:
    """The session with room for the connections of all our threads; beyond ten `requests` would make each anew, and
    say so in the log."""
    for scheme in () if session.is_mtls else ("https://", "http://"):  # what has client certificates keeps its own
        session.get_adapter(scheme).init_poolmanager(_HOSTS, access.connections)
    return session


def refuse_credentials(text: str, *, universe: str) -> None:
    """Raise `ConfigError`, which never holds the text, unless it is empty or JSON of a kind we take, for this cloud."""
    if not text:
        return
    try:
        info = json.loads(text)
        kind, domain = info.get("type"), info.get("universe_domain") or _UNIVERSE
    except (ValueError, AttributeError):
        raise ConfigError("GCP_CREDENTIALS is not a JSON object: paste the whole key file") from None
    if kind not in _KINDS:
        raise ConfigError(f"GCP_CREDENTIALS has another type than {', '.join(_KINDS)}: paste the whole key file")
    if domain != universe:
        raise ConfigError(f"GCP_UNIVERSE_DOMAIN is {universe}, and GCP_CREDENTIALS is of another cloud: change one")


def credentials(access: Access) -> Any:
    """Credentials by the kind that their text names, else by Google's own chain.

    The classes are made by name: the SDK's `load_credentials_from_dict` takes kinds that run programs. Scopes are set
    afterwards: with them `default` asks a fixed address of Google's for the project of a federation, which we know.
    """
    import google.auth
    from google.auth import aws, identity_pool
    from google.auth.credentials import with_scopes_if_required
    from google.oauth2 import credentials as user
    from google.oauth2 import service_account

    if not access.credentials:
        # It warns that it does not know the project, which we do.
        logging.getLogger("google.auth._default").setLevel(logging.ERROR)
        found, _ = google.auth.default()
        return with_scopes_if_required(found, _SCOPES)
    info = json.loads(access.credentials)
    if info["type"] == "service_account":
        return service_account.Credentials.from_service_account_info(info, scopes=_SCOPES)
    if info["type"] == "authorized_user":
        return user.Credentials.from_authorized_user_info(info, scopes=_SCOPES)
    of_aws = str(info.get("subject_token_type", "")).endswith("aws4_request")
    return (aws if of_aws else identity_pool).Credentials.from_info(info, scopes=_SCOPES)


def of_rest(name: str, answer: Any) -> ProviderError:
    """Our error for a refused call of `requests`."""
    try:
        told = answer.json()["error"]
        words, reason = str(told.get("message", "")), _reason(told)
    except (ValueError, KeyError, TypeError, AttributeError):
        words, reason = "no error that Google's API writes", ""
    return _classified(name, answer.status_code, reason=reason, words=words, headers=answer.headers)


def _reason(told: Reply) -> str:
    """The cloud's code: of the first error, or of the details that its newer APIs write."""
    if errors := told.get("errors"):
        return str(errors[0].get("reason", ""))
    return next((str(one["reason"]) for one in told.get("details") or () if one.get("reason")), "")


def of_sdk(name: str, error: Exception) -> ProviderError:
    """Our error for the SDK's, by the library that made it."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, GoogleAPICallError):
        return of_rest(name, error.response)
    if isinstance(error, TransportError | OSError):
        return ProviderUnavailable(f"Google {name}: no answer ({type(error).__name__}); {_NETWORK}")
    if isinstance(error, GoogleAuthError):
        if getattr(error, "retryable", False):
            return ProviderUnavailable(f"Google {name}: no token ({type(error).__name__}); {_NETWORK}")
        return CredentialsError(f"Google {name}: {_safe(error)}; {_CREDENTIALS}")
    if "ParseError" in type(error).__name__ or isinstance(error, ValueError | TypeError):
        return ProviderUnavailable(f"Google {name}: the answer is not Google's ({type(error).__name__}); {_NETWORK}")
    return ProviderError(f"Google {name}: {type(error).__name__}")


def failed(name: str, operation: Reply) -> ProviderError | None:
    """Our error for an operation that is done; None when it went well."""
    errors = (operation.get("error") or {}).get("errors") or ()
    if not errors:
        return None
    first = errors[0]
    return classified(str(first.get("code", "")), _said(str(first.get("message", "")), name), codes=CODES)


def _classified(name: str, status: int, *, reason: str, words: str, headers: Any) -> ProviderError:
    code = reason or _BY_STATUS.get(status, f"HTTP {status}")
    error = classified(code, _said(words, name), codes=CODES, retry_after=_seconds(headers.get("retry-after")))
    if type(error) is ProviderError and status in _BY_STATUS:
        error = classified(_BY_STATUS[status], _said(words, name), codes=CODES)
    if type(error) is ProviderError and status >= _SERVER_ERROR:
        return ProviderUnavailable(str(error))
    if type(error) is ProviderError and 200 <= status < 300:
        return ProviderUnavailable(f"Google {name}: the answer is not Google's; {_NETWORK}")
    if "universe" in words and status == 400:
        return Misconfigured(f"{error}; see GCP_UNIVERSE_DOMAIN")
    return error


def _said(words: str, name: str) -> str:
    return f"{words.rstrip('. ')} ({name})"


def _safe(error: Exception) -> str:
    """The first words of an error of credentials; what a token server answered stays out."""
    return str(error.args[0] if error.args else type(error).__name__).splitlines()[0][:200]


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:  # a date
        return 0.0
