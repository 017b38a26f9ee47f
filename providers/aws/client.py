"""The only file that imports AWS's SDK: calls in threads, paced and repeated, every foreign error translated."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from caa.errors import (
    CredentialsError,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
)
from caa.provider.capacity import classified
from caa.provider.pacing import Pacing
from caa.provider.threads import Threads
from caa.provider.waiting import to_the_end
from providers.aws.codes import CODES, DRY_RUN_PASSED

_SERVER_ERROR = 500
_LOOKS = ("describe_", "get_", "list_")  # calls that change nothing
_NETWORK = "if it stays so, see the node's network, its proxy and AWS_ENDPOINT_URL_EC2"

Heard = Callable[[Mapping[str, Any]], None]


class Ec2(Protocol):
    """EC2 as the driver sees it. Raises `ProviderError` subclasses only."""

    async def call(
        self, action: str, *, repeatable: bool = True, heard: Heard | None = None, **parameters: Any
    ) -> Mapping[str, Any]:
        """One call, by boto3's name of it; what is `repeatable` is sent again after a lost answer.

        `heard` gets the answer even when the caller was cancelled meanwhile.
        """

    async def allowed(self, action: str, **parameters: Any) -> None:
        """A dry run; raises what the cloud has against it."""

    async def identity(self) -> str:
        """The ARN of who we are."""

    async def quotas(self) -> Sequence[Mapping[str, Any]]:
        """The account's quotas of EC2 in this region, as Service Quotas lists them."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach AWS. Without a static key the SDK's whole chain is asked."""

    region: str
    key_id: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    profile: str = ""
    ec2_endpoint: str = ""
    sts_endpoint: str = ""
    quotas_endpoint: str = ""
    connect_timeout: float = 5.0
    read_timeout: float = 30.0


class Boto:
    """`Ec2` over boto3. The clients are made with the first call, and again when AWS refuses our credentials: files
    and tokens may have been exchanged since."""

    def __init__(self, access: Callable[[], Awaitable[Access]], *, pacing: Pacing, threads: Threads) -> None:
        self._access = access  # the region may have to be asked for
        self._pacing = pacing
        self._threads = threads
        self._clients: dict[str, Any] = {}
        self._age = 0  # how often the clients were thrown away

    async def call(
        self, action: str, *, repeatable: bool = True, heard: Heard | None = None, **parameters: Any
    ) -> Mapping[str, Any]:
        return await self._asked(_Call("ec2", action, parameters, repeatable=repeatable, heard=heard))

    async def allowed(self, action: str, **parameters: Any) -> None:
        try:
            await self._asked(_Call("ec2", action, {**parameters, "DryRun": True}))
        except ProviderError as error:
            if not str(error).startswith(DRY_RUN_PASSED):
                raise

    async def identity(self) -> str:
        return str((await self._asked(_Call("sts", "get_caller_identity", {})))["Arn"])

    async def quotas(self) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            asked = {"ServiceCode": "ec2", "MaxResults": 100, **more}
            reply = await self._asked(_Call("service-quotas", "list_service_quotas", asked, tries=2))
            found += reply.get("Quotas") or ()
            if not reply.get("NextToken"):
                return found
            more = {"NextToken": str(reply["NextToken"])}

    async def close(self) -> None:
        """Connections close with the clients; threads end with what they are doing."""
        self._clients.clear()
        self._threads.close()

    async def _asked(self, call: "_Call") -> Mapping[str, Any]:
        """Paced, repeated, and once more with fresh credentials, however many others are refused at the same time."""
        age = self._age
        try:
            return await self._paced(call)
        except CredentialsError:
            if age == self._age:
                self._age += 1
                self._clients = {}  # a thread that still makes one with the old credentials keeps it to itself
        return await self._paced(call)

    async def _paced(self, call: "_Call") -> Mapping[str, Any]:
        return await self._pacing.call(lambda: self._once(call), tries=call.tries, repeatable=call.repeatable)

    async def _once(self, call: "_Call") -> Mapping[str, Any]:
        """What changes something goes on to its end when the caller is cancelled, so that an undo finds what it did."""
        access = await self._access()
        if call.action.startswith(_LOOKS):
            return await self._threads.run(lambda: self._blocking(call, access))
        return await to_the_end(self._heard(call, access))

    async def _heard(self, call: "_Call", access: Access) -> Mapping[str, Any]:
        answer = await self._threads.run(lambda: self._blocking(call, access))
        if call.heard is not None:
            call.heard(answer)
        return answer

    def _blocking(self, call: "_Call", access: Access) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.parsers import ResponseParserError

        clients = self._clients
        try:
            client = clients.get(call.service)
            if client is None:
                client = clients[call.service] = made(call.service, access)
            answer: Mapping[str, Any] = getattr(client, call.action)(**call.parameters)
        except ClientError as error:
            raise of_answer(call.action, error.response) from error
        except (BotoCoreError, HTTPClientError, ResponseParserError, ValueError) as error:
            raise of_sdk(call.action, error) from error
        return answer


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of AWS's."""

    service: str
    action: str
    parameters: Mapping[str, Any] = field(repr=False)
    repeatable: bool = True
    tries: int = 5
    heard: Heard | None = None


def made(service: str, access: Access) -> Any:
    """A client of boto3 that repeats nothing by itself: `Pacing` does, and counts every call."""
    import boto3
    from botocore.config import Config

    session = boto3.Session(
        aws_access_key_id=access.key_id or None,
        aws_secret_access_key=access.secret or None,
        aws_session_token=access.token or None,
        profile_name=None if access.key_id else access.profile or None,
        region_name=access.region or None,
    )
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=access.connect_timeout,
        read_timeout=access.read_timeout,
        max_pool_connections=50,
        user_agent_extra="peerpods-caa",
    )
    endpoint = {
        "ec2": access.ec2_endpoint,
        "sts": access.sts_endpoint,
        "service-quotas": access.quotas_endpoint,
    }[service]
    return session.client(service, config=config, endpoint_url=endpoint or None)


def of_answer(action: str, answer: Mapping[str, Any]) -> ProviderError:
    """Our error for AWS's: `Error` with `Code` and `Message`, `ResponseMetadata` with the status and headers."""
    code, words = str(answer["Error"].get("Code", "")), str(answer["Error"].get("Message", ""))
    message = f"{words.rstrip('. ')} ({_wire_name(action)})"
    meta = answer.get("ResponseMetadata", {})
    error = classified(code, message, codes=CODES, retry_after=_seconds(meta.get("HTTPHeaders", {}).get("retry-after")))
    if type(error) is ProviderError and int(meta.get("HTTPStatusCode", 0)) >= _SERVER_ERROR:
        return ProviderUnavailable(str(error))
    return error


def of_sdk(action: str, error: Exception) -> ProviderError:
    """Our error for what the SDK says before there is an answer, by the name of its class."""
    name, text = type(error).__name__, f"AWS {_wire_name(action)}: {error}".rstrip(".")
    if name == "ResponseParserError":
        return ProviderUnavailable(
            f"AWS {_wire_name(action)}: the answer is not EC2's ({type(error.__cause__ or error).__name__}); {_NETWORK}"
        )
    if name in _NO_CREDENTIALS:
        return CredentialsError(
            f"{text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the node or its service account a role"
        )
    if name == "ProfileNotFound":
        return Misconfigured(f"{text}; see --aws-profile")
    if name in ("NoRegionError", "InvalidRegionError"):
        return Misconfigured(f"{text}; set AWS_REGION")
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return Misconfigured(f"{text}; see AWS_ENDPOINT_URL_EC2")
    if name == "ParamValidationError":
        return InvalidRequest(text)
    if name in _NO_ANSWER:
        return ProviderUnavailable(f"{text}; {_NETWORK}")
    return ProviderError(text)


_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "NoAuthTokenError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "InvalidConfigError",
        "MetadataRetrievalError",
    }
)
_NO_ANSWER = frozenset(
    {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "ProxyConnectionError",
        "SSLError",
        "HTTPClientError",
        "ResponseStreamingError",
        "IncompleteReadError",
    }
)


def _wire_name(action: str) -> str:
    return "".join(part.title() for part in action.split("_"))


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:  # a date
        return 0.0
