"""A driver that writes one log line a call, with its duration. Wraps any `Provider`; changes nothing else."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from caa.errors import ProviderError
from caa.model.ids import InstanceId
from caa.provider.contract import (
    Capabilities,
    Finding,
    Instance,
    InstanceState,
    InstanceType,
    LaunchRequest,
    Owner,
    Provider,
)

_log = structlog.get_logger(__name__)


class Observed:
    """The same driver, seen. User data, console contents and tags never reach a log."""

    def __init__(self, driver: Provider, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._name = name
        self._clock = clock

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def check(self) -> Sequence[Finding]:
        with self._call("check"):
            return await self._driver.check()

    async def instance_types(self) -> Sequence[InstanceType]:
        with self._call("instance_types"):
            return await self._driver.instance_types()

    async def create(self, request: LaunchRequest) -> Instance:
        with self._call("create", instance=request.name, instance_type=request.instance_type):
            return await self._driver.create(request)

    async def delete(self, instance: InstanceId) -> None:
        with self._call("delete", instance=instance):
            await self._driver.delete(instance)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        with self._call("list_owned", cluster=owner.cluster, node=owner.node):
            return await self._driver.list_owned(owner)

    async def state(self, instance: InstanceId) -> InstanceState:
        with self._call("state", instance=instance):
            return await self._driver.state(instance)

    async def console(self, instance: InstanceId) -> bytes:
        with self._call("console", instance=instance):
            return await self._driver.console(instance)

    async def close(self) -> None:
        with self._call("close"):
            await self._driver.close()

    @contextmanager
    def _call(self, act: str, **what: str) -> Iterator[None]:
        begin = self._clock()
        outcome: dict[str, str] = {"result": "ok"}
        try:
            yield
        except ProviderError as error:
            outcome = {"result": type(error).__name__, "error": str(error)}
            raise
        except asyncio.CancelledError:
            outcome = {"result": "cancelled"}
            raise
        except Exception as error:
            # A driver broke its contract. The text may come from anywhere, so only the type is written.
            outcome = {"result": f"broken contract: {type(error).__name__}"}
            raise
        finally:
            duration = round((self._clock() - begin) * 1000, 1)
            _log.info("provider call", provider=self._name, act=act, duration_ms=duration, **what, **outcome)
