"""What the driver does with libvirt, act by act: blocking calls, each of which may be repeated after a lost answer."""

import io
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import libvirt

from caa.errors import CapacityError, InvalidRequest, Misconfigured, ProviderError
from providers.libvirt import domain, facts, sight
from providers.libvirt.connection import Connection, code_of, supported
from providers.libvirt.facts import FILE_POOLS, Facts, PoolFacts, VolumeFacts
from providers.libvirt.faults import (
    INVALID_ARGUMENT,
    NO_DOMAIN,
    NO_NETWORK,
    NO_POOL,
    NO_VOLUME,
)
from providers.libvirt.sight import Found, Look
from providers.libvirt.translate import NAMESPACE, PREFIX, Record

_CONSOLE_BYTES = 1 << 20
_SECTOR, _BOOTABLE = 512, b"\x55\xaa"  # the end of an MBR, which a GPT disk has too (UEFI 2.10, 5.2.3)
_UNDEFINE: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class Host:
    """One libvirt host. Every method raises `ProviderError`s only."""

    def __init__(self, connection: Connection, *, acceleration: str = "auto") -> None:
        self.connection = connection
        self._acceleration = acceleration
        self._may_choose = acceleration == "auto"
        self._refreshing = threading.Lock()
        self._facts: tuple[tuple[int, str], Facts] | None = None

    def without_kvm(self) -> bool:
        """Emulate from now on, where the operator leaves the choice to us; else False. Several pods that start at once
        may each find that KVM does not work, and each is made anew."""
        if self._may_choose:
            self._acceleration = "qemu"
        return self._may_choose

    # --- what there is ---

    def facts(self) -> Facts:
        """Asked once a connection, and kind of domain."""
        with self.connection.work() as conn:
            now = (self.connection.generation, self._acceleration)
            if self._facts is None or self._facts[0] != now:
                self._facts = now, self._read_facts(conn, now[1])
            return self._facts[1]

    def _read_facts(self, conn: Any, acceleration: str) -> Facts:
        arch, kind = facts.guest_of(conn.getCapabilities(), acceleration)
        machine = domain.MACHINES[arch].machine or None
        document = supported(lambda: conn.getDomainCapabilities(None, arch, machine, kind, 0), "")
        _, memory, cpus, *_ = conn.getInfo()
        return facts.facts(arch, kind, memory_mib=int(memory), cpus=int(cpus), domain_capabilities=document)

    def free_memory(self) -> int | None:
        """MiB that the host can give; None where it does not say."""
        with self.connection.work() as conn:
            stats = supported(lambda: conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0), None)
        if not stats:
            return None
        return int(sum(int(stats.get(one, 0)) for one in ("free", "buffers", "cached"))) >> 10

    def pool(self, name: str) -> PoolFacts:
        """A pool that is active and kept in files; else `Misconfigured`."""
        with self.connection.work() as conn:
            pool = _pool(conn, name)
            if not pool.isActive():
                raise Misconfigured(f"LIBVIRT_POOL: the storage pool {name} is not active: virsh pool-start {name}")
            found = facts.pool_of(pool.XMLDesc(0))
        if found.kind not in FILE_POOLS or not found.path:
            raise Misconfigured(f"LIBVIRT_POOL: {name} is a pool of type {found.kind}; it has to be dir, fs or netfs")
        return found

    def network(self, name: str) -> bool | None:
        """Whether an active network hands out addresses, None where that is not libvirt's; else `Misconfigured`."""
        with self.connection.work() as conn:
            try:
                network = conn.networkLookupByName(name)
            except libvirt.libvirtError as error:
                if code_of(error) != NO_NETWORK:
                    raise
                raise Misconfigured(f"LIBVIRT_NET: there is no network {name}: see virsh net-list --all") from error
            if not network.isActive():
                raise Misconfigured(f"LIBVIRT_NET: the network {name} is not active: virsh net-start {name}")
            return facts.has_dhcp(network.XMLDesc(0))

    def volume(self, pool: str, name: str, *, setting: str) -> VolumeFacts:
        """A volume by its name. One that the pool does not know is looked for once more, after a refresh.

        A refresh collides with whoever works on the pool at the time, so it is made only then, and one at a time.
        """
        with self.connection.work() as conn:
            holder = _pool(conn, pool)
            found = _volume(holder, name)
            if found is None:
                with self._refreshing:
                    holder.refresh(0)
                found = _volume(holder, name)
            if found is None:
                # Operators' tests look for the words in brackets (user-pains.md 5.1).
                raise InvalidRequest(
                    f"{setting}: there is no volume {name} in the pool {pool} (Error in creating volume: Can't "
                    f"retrieve volume {name}): see virsh vol-list {pool} and docs/providers/libvirt.md"
                )
            return facts.volume_of(found.XMLDesc(0))

    def image(self, pool: str, name: str, *, boots: bool, setting: str = "LIBVIRT_VOL_NAME") -> VolumeFacts:
        """The volume with the image. One that firmware has to boot from and that can be no disk is `InvalidRequest`:
        the VM would wait for its time to be up."""
        found = self.volume(pool, name, setting=setting)
        if not boots or found.format != "raw" or not domain.MACHINES[self.facts().arch].uefi:
            return found
        with self.connection.work() as conn:
            volume = _pool(conn, pool).storageVolLookupByName(name)
            head = supported(lambda: _content(conn, volume, start=0, length=_SECTOR), None)
        if head is not None and not head.endswith(_BOOTABLE):
            raise InvalidRequest(
                f"{setting}: the volume {name} in the pool {pool} is no disk image: neither qcow2 nor a raw "
                "disk with a partition table; upload it again, see docs/providers/libvirt.md"
            )
        return found

    def find(self, name: str) -> Found | None:
        """The domain of that name."""
        with self.connection.work() as conn:
            return sight.found(lambda: conn.lookupByName(name))

    def get(self, uuid: str) -> Found | None:
        """The domain of that UUID."""
        with self.connection.work() as conn:
            return sight.found(lambda: conn.lookupByUUIDString(uuid))

    def records(self) -> Sequence[Record]:
        """Of every domain of ours, running or not; one that vanishes meanwhile is left out."""
        with self.connection.work() as conn:
            found = [sight.found(partial(_same, one)) for one in conn.listAllDomains(0)]
        return [one.record for one in found if one is not None and one.record is not None]

    # --- what is made ---

    def refuse_existing(self, pool: str, names: Sequence[str]) -> None:
        """`InvalidRequest` when a volume is there that we are about to make: it is not ours, so it stays."""
        with self.connection.work() as conn:
            holder = _pool(conn, pool)
            for name in names:
                if _volume(holder, name) is not None:
                    raise InvalidRequest(
                        f"the pool {pool} has a volume {name} that belongs to no pod VM of ours: "
                        f"look at it, then virsh vol-delete --pool {pool} {name}"
                    )

    def define(self, document: str) -> None:
        """Make the domain known, not running. Twice is once, for the document holds the UUID."""
        with self.connection.work() as conn:
            conn.defineXMLFlags(document, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def make_volume(self, pool: str, name: str, *, document: str) -> None:
        """Make a volume. After `refuse_existing`, one that is there is ours, from a call whose answer was lost."""
        with self.connection.work() as conn:
            holder = _pool(conn, pool)
            try:
                holder.createXML(document, 0)
            except libvirt.libvirtError:
                if _volume(holder, name) is None:
                    raise

    def upload(self, pool: str, name: str, *, content: bytes) -> None:
        """Write a volume's content, and see that it is there.

        libvirt 9.0 says that all is well when the last 256 KiB found no room, for it writes behind the stream's end.
        """
        with self.connection.work() as conn:
            volume, stream = _pool(conn, pool).storageVolLookupByName(name), conn.newStream(0)
            volume.upload(stream, 0, len(content), 0)
            source = io.BytesIO(content)
            _carried(stream, lambda: stream.sendAll(lambda _stream, size, _opaque: source.read(size), None))
            if _content(conn, volume, start=0) != content:
                raise CapacityError(f"the storage pool {pool} did not keep {name}: is it full (LIBVIRT_POOL)?")

    def start(self, uuid: str) -> None:
        """Start the domain; one that runs already was started by a call whose answer was lost."""
        with self.connection.work() as conn:
            dom = conn.lookupByUUIDString(uuid)
            try:
                dom.create()
            except libvirt.libvirtError:
                if not dom.isActive():
                    raise

    def note(self, record: Record) -> None:
        """Write the record into the domain, running and stored."""
        where = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        with self.connection.work() as conn:
            dom = conn.lookupByUUIDString(record.uuid)
            element = domain.record_text(record)
            dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, element, PREFIX, NAMESPACE, where)

    # --- what it does ---

    def look(self, uuid: str) -> Look:
        """Whether it runs and which addresses it has: the first source that knows one is believed."""
        with self.connection.work() as conn:
            return sight.look(lambda: conn.lookupByUUIDString(uuid))

    def state(self, uuid: str) -> tuple[int, int] | None:
        """libvirt's state and reason; None when there is no such domain of ours."""
        with self.connection.work() as conn:
            try:
                state, reason = conn.lookupByUUIDString(uuid).state(0)
            except libvirt.libvirtError as error:
                if code_of(error) != NO_DOMAIN:
                    raise
                return None
            return int(state), int(reason)

    def console(self, pool: str, name: str) -> bytes:
        """The last MiB of a console log; nothing when there is none."""
        with self.connection.work() as conn:
            volume = _volume(_pool(conn, pool), name)
            if volume is None:
                return b""
            return _content(conn, volume, start=max(0, int(volume.info()[1]) - _CONSOLE_BYTES))[-_CONSOLE_BYTES:]

    # --- what is removed ---

    def remove_volume(self, pool: str, name: str) -> None:
        """Remove a volume; absent is success."""
        with self.connection.work() as conn:
            _delete(_pool(conn, pool), name)

    def remove(self, uuid: str) -> None:
        """Stop a domain of ours, remove its volumes, then forget it, so that a cut remove can be repeated.

        Absent is success. A domain without our metadata is left alone: `ProviderError`.
        """
        found = self.get(uuid)
        if found is None:
            return
        if found.record is None:
            raise ProviderError(
                f"the domain {found.name} ({uuid}) was not made by this adaptor and stays: remove it with virsh"
            )
        with self.connection.work() as conn:
            try:
                dom = conn.lookupByUUIDString(uuid)
                _halt(dom)
                self._remove_volumes(conn, found.record)
                _undefine(dom)
            except libvirt.libvirtError as error:
                if code_of(error) != NO_DOMAIN:
                    raise

    def _remove_volumes(self, conn: Any, record: Record) -> None:
        holder = _pool(conn, record.pool)
        for name in record.volumes:
            _delete(holder, name)
        self._remove_rotated(holder, record.console)

    def _remove_rotated(self, holder: Any, console: str) -> None:
        """virtlogd moves a full log (2 MiB) aside as .0, .1 and so on; the pool learns of them only by a refresh.

        Whether there is any shows when a volume of that name cannot be made: so a quiet VM costs no refresh.
        """
        try:
            holder.createXML(domain.raw_volume(f"{console}.0", 0), 0).delete(0)
            return
        except libvirt.libvirtError:
            with self._refreshing:
                holder.refresh(0)
        number = 0
        while _delete(holder, f"{console}.{number}"):
            number += 1


def _pool(conn: Any, name: str) -> Any:
    try:
        return conn.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if code_of(error) != NO_POOL:
            raise
        raise Misconfigured(f"LIBVIRT_POOL: there is no storage pool {name}: see virsh pool-list --all") from error


def _content(conn: Any, volume: Any, *, start: int, length: int = 0) -> bytes:
    """`length` bytes, 0 for all."""
    stream, found = conn.newStream(0), io.BytesIO()
    volume.download(stream, start, length, 0)
    _carried(stream, lambda: stream.recvAll(lambda _stream, data, _opaque: found.write(data), None))
    return found.getvalue()


def _carried(stream: Any, carry: Callable[[], object]) -> None:
    try:
        carry()
        stream.finish()
    except libvirt.libvirtError:
        with suppress(libvirt.libvirtError):
            stream.abort()
        raise


def _volume(pool: Any, name: str) -> Any:
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if code_of(error) != NO_VOLUME:
            raise
        return None


def _delete(pool: Any, name: str) -> bool:
    """Whether it was there."""
    volume = _volume(pool, name)
    if volume is None:
        return False
    try:
        volume.delete(0)
    except libvirt.libvirtError as error:
        if code_of(error) != NO_VOLUME:
            raise
    return True


def _halt(dom: Any) -> None:
    """Whatever state it is in: paused, suspended or shutting down also hold the disk."""
    if not dom.isActive():
        return
    try:
        dom.destroy()
    except libvirt.libvirtError:
        if dom.isActive():
            raise


def _undefine(dom: Any) -> None:
    try:
        dom.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as error:
        if code_of(error) != INVALID_ARGUMENT:  # drivers without such files know no such flags
            raise
        dom.undefine()


def _same(dom: Any) -> Any:
    return dom
