"""The only file that imports AWS's SDK: calls in threads, paced and repeated, every foreign error translated."""

from collections.abc import Awaitable, Callable, Mapping
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
_NETWORK = "if it stays so, see the node's network, its proxy and AWS_ENDPOINT_URL_EC2"


class Ec2(Protocol):
    """EC2 as the driver sees it. Raises `ProviderError` subclasses only."""

    async def call(self, action: str, *, repeatable: bool = True, **parameters: Any) -> Mapping[str, Any]:
        """One call, by boto3's name of it; what is `repeatable` is sent again after a lost answer."""

    async def allowed(self, action: str, **parameters: Any) -> None:
        """A dry run; raises what the cloud has against it."""

    async def identity(self) -> str:
        """The ARN of who we are."""

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

    async def call(self, action: str, *, repeatable: bool = True, **parameters: Any) -> Mapping[str, Any]:
        try:
            return await self._pacing.call(
                lambda: self._once("ec2", action, parameters=parameters), repeatable=repeatable
            )
        except CredentialsError:
            if self._clients.pop("ec2", None) is None:
                raise
        return await self._pacing.call(lambda: self._once("ec2", action, parameters=parameters), repeatable=repeatable)

    async def allowed(self, action: str, **parameters: Any) -> None:
        try:
            await self._pacing.call(lambda: self._once("ec2", action, parameters={**parameters, "DryRun": True}))
        except ProviderError as error:
            if not str(error).startswith(DRY_RUN_PASSED):
                raise

    async def identity(self) -> str:
        found = await self._pacing.call(lambda: self._once("sts", "get_caller_identity", parameters={}))
        return str(found["Arn"])

    async def close(self) -> None:
        """Connections close with the clients; threads end with what they are doing."""
        self._clients.clear()
        self._threads.close()

    async def _once(self, service: str, action: str, *, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """What changes something goes on to its end when the caller is cancelled, so that an undo finds what it did."""
        access = await self._access()
        work = self._threads.run(lambda: self._blocking(service, action, access=access, parameters=parameters))
        return await (work if action.startswith(("describe_", "get_")) else to_the_end(work))

    def _blocking(
        self, service: str, action: str, *, access: Access, parameters: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.parsers import ResponseParserError

        try:
            client = self._clients.get(service)
            if client is None:
                client = self._clients[service] = made(service, access)
            answer: Mapping[str, Any] = getattr(client, action)(**parameters)
        except ClientError as error:
            raise of_answer(action, error.response) from error
        except (BotoCoreError, HTTPClientError, ResponseParserError, ValueError) as error:
            raise of_sdk(action, error) from error
        return answer


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
    endpoint = {"ec2": access.ec2_endpoint, "sts": access.sts_endpoint}[service]
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
