"""The driver `local`: the contract over `Machines`. Pod VMs are process trees on the node; nothing is isolated."""

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from caa.errors import (
    CapacityError,
    CredentialsError,
    InvalidInput,
    NetworkError,
    ProviderError,
)
from caa.model.ids import InstanceId
from caa.model.instance import Severity
from caa.provider.contract import Capabilities, Finding, Instance, InstanceState, InstanceType, LaunchRequest, Owner
from providers.local import translate
from providers.local.client import Machines

T = TypeVar("T")

_NO_ROOM = frozenset({errno.ENOMEM, errno.ENOSPC, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EDQUOT})
_NOT_ALLOWED = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_WARNING = Finding(
    severity=Severity.WARNING,
    subject="isolation",
    detail="local pod VMs are processes of this node: a pod can read and change everything here",
    remedy="use it for demonstrations and tests only",
)


class LocalProvider:
    """Pod VMs as processes. The work is done in threads; a cancelled call first finishes and undoes its work."""

    capabilities = Capabilities(sized_by_type=False, console=True, isolates=False)

    def __init__(
        self,
        machines: Machines,
        *,
        problems: Callable[[], Iterator[tuple[str, str, str]]],
        clock: Callable[[], float],
    ) -> None:
        self._machines = machines
        self._problems = problems
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check(self) -> Sequence[Finding]:
        """Look for what would stop a pod VM; the first finding always says that nothing is isolated."""
        found = await _in_thread(lambda: list(self._problems()))
        return [
            _WARNING,
            *(
                Finding(severity=Severity.ERROR, subject=subject, detail=detail, remedy=remedy)
                for subject, detail, remedy in found
            ),
        ]

    async def instance_types(self) -> Sequence[InstanceType]:
        """There are none: a local pod VM takes what the node has."""
        return ()

    async def create(self, request: LaunchRequest) -> Instance:
        """Make the pod VM and return once its first process runs and its address answers; 100 ms or so."""
        record = translate.new_record(request, self._clock())
        async with self._lock(record.name):
            existing = await _in_thread(lambda: self._living(record.name))
            if existing is not None:
                return existing
            try:
                return await _in_thread(lambda: self._make(record, request.user_data))
            except asyncio.CancelledError:
                await _in_thread(lambda: self._machines.remove(record.name))
                raise

    async def delete(self, instance: InstanceId) -> None:
        """Kill it and return when no process, link, cgroup or file of it is left."""
        if not translate.valid_name(instance):
            return  # never one of ours
        async with self._lock(instance):
            await _in_thread(lambda: self._machines.remove(instance))

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """From the records on disk, so also after a restart of the node; dead and half-made ones included."""
        records = await _in_thread(self._machines.all)
        return [translate.instance(record) for record in records if record.owner == owner]

    async def state(self, instance: InstanceId) -> InstanceState:
        """From the record and the processes: one whose cable is cut runs on."""
        if not translate.valid_name(instance):
            return InstanceState.ABSENT  # never one of ours
        return await _in_thread(lambda: self._state(instance))

    async def console(self, instance: InstanceId) -> bytes:
        """The last MiB of what the pod VM printed."""
        if not translate.valid_name(instance):
            return b""
        return await _in_thread(lambda: self._machines.console(instance))

    async def close(self) -> None:
        """Nothing is held open; the pod VMs live on."""

    def _state(self, name: str) -> InstanceState:
        if self._machines.find(name) is None:
            return InstanceState.ABSENT
        return InstanceState.RUNNING if self._machines.runs(name) else InstanceState.STOPPED

    def _living(self, name: str) -> Instance | None:
        record = self._machines.find(name)
        if record is None or record.address is None or not self._machines.alive(name):
            return None
        return translate.instance(record)

    def _make(self, record: translate.Record, user_data: bytes) -> Instance:
        self._machines.remove(record.name)  # what a crash, or the death of its processes, left
        try:
            return translate.instance(self._machines.launch(record, user_data))
        except BaseException:
            self._machines.remove(record.name)
            raise

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread to its end, even when the caller is cancelled: only then its leftovers are known."""
    with _translated():
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                try:
                    await asyncio.wait({running})
                except asyncio.CancelledError:
                    continue  # cancelled again: the thread still cannot be stopped
            if not running.cancelled():
                running.exception()  # seen; the cancellation is what the caller gets
            raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ProviderError:
        raise
    except (NetworkError, InvalidInput) as error:
        raise ProviderError(f"the network of the pod VM: {error}") from error
    except OSError as error:
        raise _of(error) from error


def _of(error: OSError) -> ProviderError:
    text = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    if error.errno in _NO_ROOM:
        return CapacityError(f"this node has no room: {text}")
    if error.errno in _NOT_ALLOWED:
        return CredentialsError(f"the local provider needs root and writable cgroups: {text}")
    return ProviderError(text)
