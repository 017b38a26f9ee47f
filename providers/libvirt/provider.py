"""The driver `libvirt`: the contract over `Host`. Calls run in a bounded pool of threads, waits in the event loop."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

import structlog

from caa.errors import CapacityError, InstanceTypeError, InvalidRequest, ProviderError
from caa.model.ids import InstanceId
from caa.provider.clock import Clock
from caa.provider.console import ending
from caa.provider.contract import (
    Capabilities,
    Finding,
    Instance,
    InstanceState,
    InstanceType,
    LaunchRequest,
    Owner,
)
from caa.provider.requests import IMAGE_ANNOTATION
from caa.provider.threads import Threads
from caa.provider.waiting import all_or_nothing, to_the_end
from providers.libvirt import checks, domain, seed, translate
from providers.libvirt.client import Host
from providers.libvirt.faults import Busy, ConnectionLost, KvmUnusable
from providers.libvirt.sight import Found, Look
from providers.libvirt.translate import Plan, Record, Site

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_RECONNECT = 30.0  # seconds in which a restarting libvirtd has to come back; one was seen to take 8 (testbed.md 1)
_RECONNECT_PAUSE = 0.25
_UNDO = 120.0  # seconds; longer than a reconnect and the 15 s that libvirt gives a QEMU that does not die
_LOOK_PAUSE = 0.5  # seconds between two looks for an address, when no event comes before


class LibvirtProvider:
    """Pod VMs as libvirt domains. A domain is defined first, with its metadata, and forgotten last: so whatever a crash
    leaves can be found by its owner."""

    capabilities = Capabilities(sized_by_type=False, console=True, volumes=True)

    def __init__(self, host: Host, site: Site, *, threads: Threads, clock: Clock, address_timeout: float) -> None:
        self._host = host
        self._site = site
        self._threads = threads
        self._clock = clock
        self._address_timeout = address_timeout
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: dict[str, WeakSet[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        host.connection.watcher = self._changed

    async def check(self) -> Sequence[Finding]:
        """Connection, kind of VM, pool, network, image, firmware: what is there and what is missing."""
        return await self._call(lambda: checks.findings(self._host, self._site))

    async def instance_types(self) -> Sequence[InstanceType]:
        """The most that a pod VM may have on this host. Pods ask for numbers, or name a type `<vCPUs>x<MiB>`."""
        facts = await self._call(self._host.facts)
        return [translate.largest(facts)] if facts.memory_mib else []

    async def create(self, request: LaunchRequest) -> Instance:
        """Make the pod VM and return once it has an address. One of this name that runs already is taken over, if it is
        this owner's and this sandbox's; what a crash left of one is removed first."""
        plan = translate.plan(self._site, request, uuid=str(uuid.uuid4()), now=self._clock.wall())
        async with self._lock(request.name):
            existing = await self._call(lambda: self._host.find(request.name))
            if existing is not None:
                record = _own(existing, request)
                if existing.active:
                    return await self._all_or_nothing(record, self._ready(record))
                await self._call(lambda: self._host.remove(record.uuid))
            return await self._new(plan, request)

    async def delete(self, instance: InstanceId) -> None:
        """Stop it, remove its disks, forget it; return when libvirt has nothing of it any more."""
        if not translate.is_instance(instance):
            return  # never one of ours
        async with self._lock(instance):
            await self._call(lambda: self._host.remove(instance))

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """By the metadata of every domain, running or not."""
        records = await self._call(self._host.records)
        return [translate.instance(record) for record in records if record.owner == owner]

    async def state(self, instance: InstanceId) -> InstanceState:
        """As libvirt has it; one whose disk is full is paused, and counts as stopped."""
        if not translate.is_instance(instance):
            return InstanceState.ABSENT
        found = await self._call(lambda: self._host.state(instance))
        return InstanceState.ABSENT if found is None else translate.state_of(*found)

    async def console(self, instance: InstanceId) -> bytes:
        """The last MiB of its serial console."""
        if not translate.is_instance(instance):
            return b""
        found = await self._call(lambda: self._host.get(instance))
        if found is None or found.record is None:
            return b""
        record = found.record
        return await self._call(lambda: self._host.console(record.pool, record.console))

    async def close(self) -> None:
        """Close the connection; pod VMs live on."""
        await self._threads.run(self._host.connection.close)
        self._threads.close()

    # --- a create ---

    async def _new(self, plan: Plan, request: LaunchRequest) -> Instance:
        """With KVM, or without it once QEMU has said that it does not work here: libvirt cannot know before."""
        try:
            return await self._all_or_nothing(plan.record, self._make(plan, request.user_data))
        except KvmUnusable as error:
            if self._site.launch or self._site.confidential or not self._host.without_kvm():
                raise
            _log.warning("pod VMs are emulated from now on, which is slow", error=str(error))
        return await self._all_or_nothing(plan.record, self._make(plan, request.user_data))

    async def _make(self, plan: Plan, user_data: bytes) -> Instance:
        parts = await self._call(lambda: self._parts(plan))
        document = domain.domain(self._site, plan, parts=parts)
        record, host, pool = plan.record, self._host, plan.record.pool
        content = await self._call(lambda: seed.image(record.name, record.uuid, user_data=user_data))
        await self._call(lambda: host.define(document))
        for name, volume in domain.volumes(self._site, record, image=parts.image, seed_size=len(content)):
            await self._call(partial(host.make_volume, pool, name, document=volume))
        await self._call(lambda: host.upload(pool, record.seed, content=content))
        try:
            await self._call(lambda: host.start(record.uuid))
        except ProviderError as error:
            raise translate.blamed(self._site, error) from error
        _log.info("the VM runs, its address is waited for", instance=record.name)
        return await self._ready(record)

    def _parts(self, plan: Plan) -> domain.Parts:
        """Read everything that the domain needs, and refuse what cannot work, before anything is made."""
        host, site, record = self._host, self._site, plan.record
        found = host.facts()
        pool = host.pool(record.pool)
        host.network(site.network)
        said = "LIBVIRT_VOL_NAME" if plan.image == site.volume else f"the annotation {IMAGE_ANNOTATION}"
        image = host.image(record.pool, plan.image, boots=not site.kernel, setting=said) if plan.image else None
        data = tuple(host.volume(record.pool, one, setting="data volume") for one in plan.data)
        for name, one in zip(plan.data, data, strict=True):
            translate.refuse_format(name, one.format)
        host.refuse_existing(record.pool, record.volumes)
        _refuse_size(plan, memory_mib=found.memory_mib, max_vcpus=found.max_vcpus)
        free = None if site.overcommit else host.free_memory()
        if free is not None and plan.memory_mib > free:
            raise CapacityError(
                f"the libvirt host has not enough memory: {plan.memory_mib} MiB asked for, {free} MiB free; "
                "LIBVIRT_MEMORY_OVERCOMMIT=true tries all the same"
            )
        return domain.Parts(facts=found, pool=pool, image=image, data=data)

    async def _ready(self, record: Record) -> Instance:
        """Drop the user data and wait for the address. A QEMU that runs has its file open, so the guest still reads it
        when the name is gone; only the host cannot any more."""
        await self._call(lambda: self._host.remove_volume(record.pool, record.seed))
        if record.addresses:
            return translate.instance(record)
        woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(record.uuid, WeakSet())
        waiting.add(woken)
        try:
            known = translate.with_addresses(record, (await self._addresses(record, woken)).addresses)
        finally:
            waiting.discard(woken)
            if not waiting:
                self._waiting.pop(record.uuid, None)
        await self._call(lambda: self._host.note(known))
        return translate.instance(known)

    async def _addresses(self, record: Record, woken: asyncio.Event) -> Look:
        end = self._clock.now() + self._address_timeout
        while True:
            woken.clear()
            look = await self._call(lambda: self._host.look(record.uuid))
            if look.no_room:
                raise CapacityError(
                    f"the storage pool {record.pool} is full (LIBVIRT_POOL): {record.name} was stopped as it booted"
                )
            if not look.active:
                raise ProviderError(f"the pod VM {record.name} ended as it booted{await self._last_words(record)}")
            if look.addresses:
                return look
            if self._clock.now() >= end:
                raise ProviderError(
                    f"the pod VM {record.name} has no address after {self._address_timeout:g} s "
                    f"(LIBVIRT_ADDRESS_TIMEOUT; {look.tried}): does its image boot on this host, and is there a DHCP "
                    f"server on LIBVIRT_NET {self._site.network}?{await self._last_words(record)}"
                )
            await self._pause(woken)

    async def _pause(self, woken: asyncio.Event) -> None:
        """Until something is heard of the domain, or it is time to look again."""
        event = asyncio.ensure_future(woken.wait())
        pause = asyncio.ensure_future(self._clock.sleep(_LOOK_PAUSE))
        try:
            await asyncio.wait({event, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            event.cancel()
            pause.cancel()

    def _changed(self, uuid: str) -> None:
        """Called by libvirt's thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, uuid)

    def _wake(self, uuid: str) -> None:
        for event in self._waiting.get(uuid, ()):
            event.set()

    async def _last_words(self, record: Record) -> str:
        try:
            console = await self._call(lambda: self._host.console(record.pool, record.console))
        except ProviderError as error:
            return f"; its console cannot be read: {error}"
        return ending(console)

    async def _all_or_nothing(self, record: Record, making: Coroutine[Any, Any, Instance]) -> Instance:
        return await all_or_nothing(making, lambda: self._undo(record), budget=_UNDO)

    async def _undo(self, record: Record) -> None:
        await self._call(lambda: self._host.remove(record.uuid))

    # --- calls ---

    async def _call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; when libvirtd goes away or is busy, again and again, for half a minute.

        A call that has begun is waited for even when the caller goes away, so that its undoing sees what it did.
        """
        end: float | None = None
        while True:
            try:
                return await to_the_end(self._threads.run(work))
            except (ConnectionLost, Busy) as error:
                now = self._clock.now()
                if end is None:
                    end = now + _RECONNECT
                    _log.info("libvirt does not do it now, trying again", limit_s=_RECONNECT, error=str(error))
                if now >= end:
                    raise
            await self._clock.sleep(_RECONNECT_PAUSE)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _own(found: Found, request: LaunchRequest) -> Record:
    """The record of a domain that has the name we want, if it is what was asked for; never somebody else's."""
    record = found.record
    if record is None or (record.owner, record.sandbox) != (request.owner, request.sandbox):
        whose = f"node {record.owner.node} of cluster {record.owner.cluster}" if record else "nobody that we know"
        raise InvalidRequest(
            f"the libvirt host has a domain called {found.name} already, which belongs to {whose}: it stays; "
            "look at it with virsh dominfo"
        )
    return record


def _refuse_size(plan: Plan, *, memory_mib: int, max_vcpus: int | None) -> None:
    if memory_mib and plan.memory_mib > memory_mib:
        raise InstanceTypeError(f"{plan.memory_mib} MiB of memory asked for, the libvirt host has {memory_mib} in all")
    if max_vcpus and plan.vcpus > max_vcpus:
        raise InstanceTypeError(f"{plan.vcpus} vCPUs asked for, the libvirt host allows {max_vcpus} a VM")
