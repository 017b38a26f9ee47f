"""One launch and one removal: the calls in their order, each find-able again after a lost answer or a restart."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from caa.errors import Gone, InvalidRequest, ProviderError, ProviderUnavailable
from caa.model.instance import Instance
from caa.provider.addresses import Nic
from caa.provider.capacity import Place
from caa.provider.clock import Clock
from caa.provider.rows import USE_PUBLIC_IP
from caa.provider.waiting import Lookout, all_or_nothing, until
from providers.azure import shapes, translate
from providers.azure.around import CREATE, DELETE, Operations, Waits
from providers.azure.client import Arm, Resource
from providers.azure.codes import EXISTS, HELD, LEFT_OVER, NIC_RESERVED, NOT_ALLOWED
from providers.azure.shapes import ADDRESS, DISK, NIC, Where
from providers.azure.together import all_of, first_of

T = TypeVar("T")

_FEW = 3  # VMs, interfaces or addresses that are read one by one; more are one listing
_LISTINGS: Mapping[str, str] = MappingProxyType(
    {
        NIC: "network.network_interfaces.list",
        ADDRESS: "network.public_ip_addresses.list",
        DISK: "compute.disks.list_by_resource_group",
    }
)
_GETS: Mapping[str, str] = MappingProxyType(
    {
        NIC: "network.network_interfaces.get",
        ADDRESS: "network.public_ip_addresses.get",
        DISK: "compute.disks.get",
    }
)
_DELETES: Mapping[str, str] = MappingProxyType(
    {
        NIC: "network.network_interfaces.begin_delete",
        ADDRESS: "network.public_ip_addresses.begin_delete",
        DISK: "compute.disks.begin_delete",
    }
)
_UPDATE_DISK = "compute.disks.begin_update"
_HELD = (*HELD, NOT_ALLOWED)


@dataclass(slots=True)
class _Attempt:
    """What a launch may have made under its name; `ours` is False once the name is known to be somebody else's."""

    ours: bool = True


class Fleet:
    """The VMs of one resource group by name, many in one call; making one; removing one."""

    def __init__(self, arm: Arm, group: str, *, operations: Operations, clock: Clock, waits: Waits) -> None:
        self._arm = arm
        self.group = group
        self._operations = operations
        self._clock = clock
        self._waits = waits
        self._vms = Lookout(self._look, clock=clock, every=waits.poll)
        self._nics = Lookout(partial(self._look_parts, NIC), clock=clock, every=waits.poll / 4)
        self._addresses = Lookout(partial(self._look_parts, ADDRESS), clock=clock, every=waits.poll / 4)
        self._left = Lookout(self._look_left, clock=clock, every=waits.poll / 4)

    async def launch(self, plan: translate.Plan, place: Place) -> Instance:
        """Make the pod VM in this place, or find the one that was made for this sandbox before; all or nothing."""
        attempt = _Attempt()
        return await all_or_nothing(
            self._whole(plan, place, attempt=attempt), lambda: self._undo(plan, attempt), budget=self._waits.undo
        )

    async def remove(self, name: str, *, group: str = "") -> None:
        """Delete the VM with all that goes with it, and return when it is gone."""
        where = group or self.group
        token = await self._operations.token(DELETE, name)
        if not token or not await self._is_under_way(where, name, token=token):
            token = await self._arm.begin(DELETE, where, name, force_deletion=True)
            await self._operations.keep(DELETE, name, token=token)
        if token and where.lower() == self.group.lower():
            await self._until(lambda: self._is_gone(name, token), self._waits.gone, what=f"the VM {name} is deleted")
        elif token:
            await self._until(
                lambda: self._is_done(where, name, token=token), self._waits.gone, what=f"the VM {name} is deleted"
            )
        await self._operations.forget(name)
        await self._swept(name)

    async def remove_part(self, part: Where) -> None:
        """Delete a disk, interface or address whose VM is gone, and before it whatever else that VM left: a root disk
        without tags is found by the tags of the others alone."""
        found = await self._part(part.kind, part.id)
        if found is None:
            return
        if name := left_of(found):
            await self._swept(name)
        await self._until(
            lambda: self._is_removed(part), self._waits.reserved, what=f"{part.kind} {part.name} is deleted"
        )

    async def vms(self) -> list[Resource]:
        """Every VM of the resource group."""
        return await self._arm.pages("compute.virtual_machines.list", self.group)

    async def vm(self, name: str) -> Resource | None:
        """The VM of this name, None when there is none."""
        try:
            return await self._arm.read("compute.virtual_machines.get", self.group, name, expand="instanceView")
        except Gone:
            return None

    async def parts(self) -> list[Resource]:
        """Every disk, interface and address of the resource group."""
        found = await all_of(self._arm.pages(one, self.group) for one in _LISTINGS.values())
        return [one for listing in found for one in listing]

    async def instance(self, vm: Resource, *, public: bool) -> Instance:
        """The VM with its addresses, as far as it has them."""
        return shapes.instance(vm, await self._nics_of(vm, public=public), public=public)

    async def _whole(self, plan: translate.Plan, place: Place, *, attempt: _Attempt) -> Instance:
        name = plan.request.name
        await self._put(plan, place, attempt=attempt)
        made = await first_of(
            self._until(lambda: self._addressed(plan), self._waits.ready, what=f"the VM {name} has an address"),
            self._until(lambda: self._with_room(name), self._waits.ready, what=f"the VM {name} has a host"),
            self._tag_disk(plan),
        )
        await self._operations.forget(name)
        return made

    async def _put(self, plan: translate.Plan, place: Place, *, attempt: _Attempt) -> None:
        """One PUT that makes the VM only where there is none; then the one of our name has to be this sandbox's."""
        body, name = translate.virtual_machine(plan, place), plan.request.name

        async def put() -> bool | None:
            try:
                token = await self._arm.begin(CREATE, self.group, name, body, only_new=True)
                await self._operations.keep(CREATE, name, token=token)
            except InvalidRequest as error:
                if not str(error).startswith(tuple(EXISTS)):
                    raise
                return await self._is_ours(plan, attempt) or None
            except ProviderError as error:
                if not str(error).startswith((NIC_RESERVED, LEFT_OVER)):
                    raise
                if str(error).startswith(LEFT_OVER):
                    await self._swept(name)
                return None
            return True

        what = f"{name} can be made"
        await until(put, clock=self._clock, limit=self._waits.reserved, every=self._waits.again, what=what)

    async def _is_ours(self, plan: translate.Plan, attempt: _Attempt) -> bool:
        """Whether the VM of this name is this sandbox's and may be taken; one that failed or goes is waited out."""
        name, request = plan.request.name, plan.request
        try:
            found = await self._arm.read("compute.virtual_machines.get", self.group, name, expand="instanceView")
        except Gone:
            return False
        mine = shapes.owned(found)
        if mine is None or (mine.owner, mine.sandbox) != (request.owner, request.sandbox):
            attempt.ours = False
            raise InvalidRequest(f"a VM named {name} exists in {self.group}, and it is not of this sandbox: remove it")
        if shapes.is_broken(found) or shapes.provisioning(found) == shapes.DELETING:
            await self.remove(name)
            return False
        return True

    async def _with_room(self, name: str) -> Resource | None:
        vm = await self._vms.see(name.lower())
        if vm is None:
            await self._refuse_failed_operation(name)
            return None
        if shapes.is_broken(vm):
            if (error := shapes.failure(vm)) is not None:
                raise error
            await self._refuse_failed_operation(name)
            raise ProviderError(f"the VM {name} could not be made, and Azure does not say why")
        if shapes.provisioning(vm) == shapes.DELETING:
            raise ProviderUnavailable(f"the VM {name} is being deleted by somebody")
        return vm if shapes.has_room(vm) else None

    async def _refuse_failed_operation(self, name: str) -> None:
        """Raise what the PUT failed with, if it has; its token may be of before a restart."""
        if token := await self._operations.token(CREATE, name):
            await self._arm.outcome(CREATE, self.group, name, {}, token=token)

    async def _addressed(self, plan: translate.Plan) -> Instance | None:
        public = plan.settings[USE_PUBLIC_IP]
        vm = await self._with_nics(plan)
        if vm is None:
            return None
        made = await self.instance(vm, public=public)
        return made if made.addresses else None

    async def _with_nics(self, plan: translate.Plan) -> Resource | None:
        vm = await self._vms.see(plan.request.name.lower())
        return vm if vm is not None and len(shapes.nic_ids(vm)) >= plan.nics else None

    async def _tag_disk(self, plan: translate.Plan) -> None:
        """Azure takes no tags for a root disk that is made with its VM, so they are put on when it is there."""
        name = plan.request.name

        async def tagged() -> bool | None:
            vm = await self._vms.see(name.lower())
            disk = shapes.root_disk(vm) if vm is not None else ""
            if not disk:
                return None
            where = shapes.where(disk)
            if where is None:
                raise ProviderError(f"the root disk of {name} is {disk[:200]}, which is no id of a disk")
            try:
                await self._arm.begin(_UPDATE_DISK, where.group, where.name, {"tags": dict(plan.tags)})
            except ProviderUnavailable as error:
                if not str(error).startswith(_HELD):
                    raise
                return None  # Azure still works on the disk
            return True

        await self._until(tagged, self._waits.ready, what=f"the root disk of {name} exists")

    async def _nics_of(self, vm: Resource, *, public: bool) -> Sequence[Nic]:
        """The interfaces by their ids, in whatever resource group they are."""
        found: list[Resource] = []
        for one in shapes.nic_ids(vm):
            where = shapes.where(one)
            foreign = where is not None and where.group.lower() != self.group.lower()
            nic = await (self._part(NIC, one) if foreign else self._nics.see(one.lower()))
            if nic is None:
                return ()
            found.append(nic)
        addresses: dict[str, str] = {}
        for one in [name for nic in found for name in shapes.public_ids(nic)] if public else ():
            address = await self._addresses.see(one.lower())
            addresses[one.lower()] = str(shapes.properties(address or {}).get("ipAddress") or "")
        return [shapes.nic(one, addresses) for one in found]

    async def _undo(self, plan: translate.Plan, attempt: _Attempt) -> None:
        if attempt.ours:
            await self.remove(plan.request.name)

    async def _is_under_way(self, group: str, name: str, *, token: str) -> bool:
        """Whether the deletion of that token still runs; it may have been begun before a restart."""
        try:
            return not await self._arm.outcome(DELETE, group, name, token=token)
        except ProviderUnavailable:
            raise
        except ProviderError:
            return False  # it failed, or is forgotten: delete anew

    async def _is_gone(self, name: str, token: str) -> bool | None:
        vm = await self._vms.see(name.lower())
        if vm is not None and shapes.provisioning(vm) != shapes.DELETING:
            await self._arm.outcome(DELETE, self.group, name, token=token)  # raises why it failed
        return vm is None or None

    async def _is_done(self, group: str, name: str, *, token: str) -> bool | None:
        await self._clock.sleep(self._waits.poll)
        return await self._arm.outcome(DELETE, group, name, token=token) or None

    async def _swept(self, name: str) -> None:
        await self._until(lambda: self._is_swept(name), self._waits.reserved, what=f"what {name} left is deleted")

    async def _is_swept(self, name: str) -> bool | None:
        """Delete what a VM left, and say whether nothing is left. A VM that is gone takes all with it, as a rule."""
        left = await self._left.see(name.lower())
        if not left:
            return True
        for one in left:
            if (where := shapes.where(str(one["id"]))) is not None:
                await self._is_removed(where)
        return None

    async def _is_removed(self, part: Where) -> bool | None:
        """Ask for the deletion; None while Azure keeps the thing for somebody."""
        try:
            token = await self._arm.begin(_DELETES[part.kind], part.group, part.name)
            while token and not await self._arm.outcome(_DELETES[part.kind], part.group, part.name, token=token):
                await self._clock.sleep(self._waits.poll)
        except Gone:
            return True
        except ProviderUnavailable as error:
            if not str(error).startswith(_HELD):
                raise
            await self._clock.sleep(self._waits.again)
            return None
        return True

    async def _until(self, look: Callable[[], Awaitable[T | None]], limit: float, *, what: str) -> T:
        """The looks pause by themselves: they are shared."""
        return await until(look, clock=self._clock, limit=limit, every=0, what=what)

    async def _look(self, names: frozenset[str]) -> Mapping[str, Resource]:
        listed: Sequence[Resource] = ()
        if len(names) > _FEW:
            listed = await self._arm.pages("compute.virtual_machines.list", self.group, expand="instanceView")
        found = {str(one["name"]).lower(): one for one in listed}
        # A listing lags behind: what it does not show is asked for by name.
        others = await all_of(self.vm(one) for one in sorted(names - found.keys()))
        return found | {str(one["name"]).lower(): one for one in others if one is not None}

    async def _look_parts(self, kind: str, ids: frozenset[str]) -> Mapping[str, Resource]:
        listed = await self._arm.pages(_LISTINGS[kind], self.group) if len(ids) > _FEW else []
        found = {str(one["id"]).lower(): one for one in listed}
        others = await all_of(self._part(kind, one) for one in sorted(ids - found.keys()))
        return found | {str(one["id"]).lower(): one for one in others if one is not None}

    async def _part(self, kind: str, part: str) -> Resource | None:
        where = shapes.where(part)
        if where is None or where.kind != kind:
            raise ProviderError(f"{part[:200]} is no id of {kind}")
        try:
            return await self._arm.read(_GETS[kind], where.group, where.name)
        except Gone:
            return None

    async def _look_left(self, names: frozenset[str]) -> Mapping[str, list[Resource]]:
        found: dict[str, list[Resource]] = {}
        for one in await self.parts():
            name = left_of(one)
            if name in names:
                found.setdefault(name, []).append(one)
        return {name: sorted(left, key=_order) for name, left in found.items()}


def left_of(part: Resource) -> str:
    """The name, in lower case, of the VM that this disk, interface or address was made for; "" when not by us.

    A root disk that lost its VM before it was tagged is known by its name and by having no holder.
    """
    mine = shapes.owned(part)
    if mine is not None:
        return mine.name.lower()
    where = shapes.where(str(part["id"]))
    suffix = translate.disk_name("")
    if where is not None and where.kind == DISK and where.name.endswith(suffix) and not part.get("managedBy"):
        return where.name.removesuffix(suffix).lower()
    return ""


def _order(part: Resource) -> int:
    """The disk first, as long as others tell whose it is; interfaces before the addresses that they hold."""
    where = shapes.where(str(part["id"]))
    return (DISK, NIC, ADDRESS).index(where.kind) if where is not None and where.kind != shapes.VM else 3
