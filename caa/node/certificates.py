"""The upkeep of certificates: renew those of clients, rotate the CA, drop what no pod VM trusts, warn in time.

What a pod VM trusts is fixed when it is made, so nothing here touches a running pod: the relay takes the new files of
the pod's own generation when it dials next. A generation goes when neither a record nor a link of the relay uses it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from caa.errors import CaaError
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.ports import AgentLinks, Clock, LinkState
from caa.wire.certs import Certificates, NodeAuthority
from caa.wire.expiry import Expiry, Notice, Watch
from caa.wire.pki import CLOCK_SKEW

log = structlog.get_logger(__name__)

# A start that has chosen a generation has it in its record within milliseconds.
RETIRE_GRACE = timedelta(minutes=10)
_PAUSE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator says: the age of a CA that is rotated (0: never) and how long before an end to warn."""

    rotation: timedelta
    warning: timedelta


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """`once` does everything that is due. `expiries` is what was seen last, for whoever wants to measure it."""

    certificates: Certificates | None
    records: Callable[[], Sequence[Sandbox]]
    links: AgentLinks
    rules: Rules
    clock: Clock
    expiries: Sequence[Expiry] = ()
    _watch: Watch = field(default_factory=Watch)
    _troubles: frozenset[str] = frozenset()

    async def forever(self) -> None:
        """Every minute; without TLS there is nothing to do."""
        while self.certificates is not None:
            await self.once()
            await self.clock.sleep(_PAUSE)

    async def once(self) -> None:
        """Each part is tried, whatever became of the others; what fails is told once, until it is mended."""
        troubles: list[str] = []
        for part in (self._rotate, self._renew, self._retire, self._warn):
            try:
                await part()
            except (CaaError, ExceptionGroup) as error:
                troubles += [str(one) for one in getattr(error, "exceptions", (error,))]
        for trouble in troubles:
            if trouble not in self._troubles:
                log.error("certificates need attention", error=trouble)
        self._troubles = frozenset(troubles)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), UTC)

    def _authority(self) -> NodeAuthority | None:
        return self.certificates if isinstance(self.certificates, NodeAuthority) else None

    async def _rotate(self) -> None:
        authority, age = self._authority(), self.rules.rotation
        if authority is not None and age and authority.rotation_due(age):
            name = await asyncio.to_thread(authority.generations.add, self._now())
            log.info("the node has a new CA for new pod VMs", ca=name)

    async def _renew(self) -> None:
        """The client certificate of every generation, also while no pod starts."""
        authority = self._authority()
        failed = []
        for name in authority.generations.names() if authority is not None else ():
            try:
                await asyncio.to_thread(authority.client_files, name)  # type: ignore[union-attr]
            except CaaError as error:
                failed.append(error)
        if failed:
            raise ExceptionGroup("client certificates", failed)

    async def _retire(self) -> None:
        authority = self._authority()
        old = authority.retirable(RETIRE_GRACE) if authority is not None else []
        if authority is None or not old:
            return
        try:
            links = await self.links.list()
        except CaaError as error:
            log.debug("the relay cannot be asked, every CA is kept", error=str(error))
            return
        used = in_use(self.records(), links, oldest=authority.generations.names()[0])
        for name in old:
            if used is not None and name not in used:
                await asyncio.to_thread(authority.generations.remove, name)
                log.info("a CA that no pod VM needs any more is removed", ca=name)

    async def _warn(self) -> None:
        if self.certificates is None:
            return
        self.expiries = (*await asyncio.to_thread(self.certificates.expiries), *self._pod_vms())
        for notice in self._watch.due(self.expiries, self._now(), warning=self.rules.warning):
            tell(notice)

    def _pod_vms(self) -> list[Expiry]:
        """Nobody keeps a pod VM's certificate: its end is told from when its sandbox was made."""
        authority = self._authority()
        running = [one for one in self.records() if one.phase is Phase.RUNNING]
        return [] if authority is None else [found for one in running if (found := pod_vm(one, authority)) is not None]


def in_use(records: Sequence[Sandbox], links: Sequence[LinkState], *, oldest: str) -> set[str] | None:
    """The generations that pod VMs trust; a lost record's link counts too. None when such a link does not tell its."""
    known = {one.id for one in records}
    if any(not link.ca and link.sandbox not in known for link in links):
        return None
    begun = (one for one in records if one.ca or one.reached)
    return {one.ca or oldest for one in begun} | {link.ca for link in links}


def pod_vm(record: Sandbox, authority: NodeAuthority) -> Expiry | None:
    """When the certificate of a running pod VM ends, at the earliest; None when its generation cannot be read."""
    made = datetime.fromtimestamp(record.created_at, UTC)
    try:
        ends = authority.server_ends(record.ca, made)
    except CaaError:
        return None
    pod = f"{record.pod.pod_namespace}/{record.pod.pod_name}"
    return Expiry(
        subject=f"certificate of pod VM {record.instance_name}",
        begins=made - CLOCK_SKEW,
        ends=ends,
        remedy=f"restart the pod {pod}: after that its link cannot be made again once it breaks",
    )


def tell(notice: Notice) -> None:
    """One line of the log, with the figures as fields."""
    expiry = notice.expiry
    write = log.error if notice.is_error else log.warning
    write(
        f"a certificate {notice.state}",
        certificate=expiry.subject,
        begins=f"{expiry.begins:%Y-%m-%dT%H:%M:%SZ}",
        ends=f"{expiry.ends:%Y-%m-%dT%H:%M:%SZ}",
        days_left=notice.days_left,
        remedy=expiry.remedy,
    )
