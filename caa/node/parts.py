"""From settings to the concrete parts of the node: the one place that knows which class stands behind which seam."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from caa.config import identity, lifetimes, node, relay, tls_rows
from caa.config.load import Loaded, Settings
from caa.model.instance import Owner
from caa.net.worker import VxlanNetworking
from caa.node.boot_data import GuestSettings, UserData, default_initdata
from caa.node.certificates import Rules as CertificateRules
from caa.node.certificates import Upkeep
from caa.node.exchange import Exchangeable
from caa.node.ledger import NullLedger, NullWitness
from caa.node.links import LinkTls, RelayLinks
from caa.node.system import SystemClock, boot_id, own_cluster
from caa.provider.contract import Provider
from caa.provider.observed import Observed
from caa.provider.registry import driver
from caa.sandbox.abandoned import Abandonment, Graces
from caa.sandbox.boot import Recovery
from caa.sandbox.orphans import Rules, Sweep
from caa.sandbox.outages import Outages
from caa.sandbox.ports import Clock, VolumeSource, World
from caa.sandbox.rebuild import Rebuild
from caa.sandbox.service import Limits, SandboxService
from caa.sandbox.steps import Connect, FindVolumes, Launch, Link, Note, Own, Step
from caa.sandbox.store import SqliteStore, open_store
from caa.sandbox.store_file import StoreHeld
from caa.userdata.budget import Budget
from caa.wire.certs import Certificates, ManualCertificates, NodeAuthority

log = structlog.get_logger(__name__)

STORE = "node.db"
_TAKEOVER_PAUSE = 0.1  # seconds between two tries at the lock of the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that the daemon starts, watches and closes."""

    provider: Observed
    driver: Exchangeable
    networking: VxlanNetworking
    links: RelayLinks
    store: SqliteStore
    boot_data: UserData
    service: SandboxService
    recovery: Recovery
    rebuild: Rebuild
    sweep: Sweep
    abandonment: Abandonment
    upkeep: Upkeep
    outages: Outages

    def apply(self, settings: Settings, changed: Sequence[Loaded]) -> None:
        """Take over what may change while the node runs, all or nothing. Raises `ConfigError`, `InitdataError`."""
        name = settings[identity.CLOUD_PROVIDER]
        chosen, guest = driver(name), _guest(settings)
        if any(one.row in chosen.settings for one in changed):
            self.driver.exchange(chosen.make(settings))
        self.boot_data.settings = guest
        self.service.limits = _limits(settings, self.provider)
        self.sweep.rules = _gc_rules(settings)
        self.abandonment.graces = _graces(settings)
        self.upkeep.rules = _cert_rules(settings)


async def assembled(settings: Settings, *, volumes: VolumeSource | None = None) -> Parts:
    """Make the parts. Opens the store and the CA, asks nobody else. Without `volumes` no pod has any. `CaaError`s."""
    name, clock, now = settings[identity.CLOUD_PROVIDER], SystemClock(), asyncio.get_running_loop().time
    certificates, guest = _certificates(settings), _guest(settings)
    exchangeable = Exchangeable.of(driver(name).make(settings))
    provider = Observed(exchangeable, name)
    networking = _networking(settings)
    links = _links(settings, certificates)
    budget = Budget(provider.capabilities.user_data_limit, provider.capabilities.user_data_base64)
    boot_data = UserData(certificates, budget, settings=guest)
    store = await _store(settings, clock)
    owner, booted, ledger = _owner(settings), boot_id(), NullLedger()
    world = World(
        store=store,
        network=networking,
        links=links,
        boot_data=boot_data,
        owner=owner,
        provider=name,
        current_ca=boot_data.current_ca,
    )
    find: Sequence[Step] = () if volumes is None else (FindVolumes(volumes, provider),)
    last = (Note(ledger), Connect(networking), Link(links, provider.console))
    steps = (Own(ledger), *find, Launch(provider, boot_data, owner), *last)
    service = SandboxService(world, steps, clock=clock, boot_id=booted, limits=_limits(settings, provider))
    return Parts(
        provider=provider,
        driver=exchangeable,
        networking=networking,
        links=links,
        store=store,
        boot_data=boot_data,
        service=service,
        recovery=Recovery(service=service, links=links, provider=provider, owner=owner, boot_id=booted),
        rebuild=Rebuild(
            service=service,
            store=store,
            network=networking,
            links=links,
            provider=provider,
            owner=owner,
            clock=clock,
            boot_id=booted,
        ),
        sweep=Sweep(provider=provider, store=store, owner=owner, clock=clock, rules=_gc_rules(settings)),
        abandonment=_abandonment(settings, service, links=links),
        upkeep=Upkeep(
            certificates=certificates, records=service.records, links=links, rules=_cert_rules(settings), clock=clock
        ),
        outages=Outages(service=service, links=links, provider=provider, clock=clock, now=now),
    )


def _abandonment(settings: Settings, service: SandboxService, *, links: RelayLinks) -> Abandonment:
    return Abandonment(
        service=service,
        links=links,
        witness=NullWitness(),
        graces=_graces(settings),
        now=asyncio.get_running_loop().time,
        sleep=SystemClock().sleep,
    )


async def _store(settings: Settings, clock: Clock) -> SqliteStore:
    """Open the store; one that another node holds is waited for, for TAKEOVER_WAIT. Raises `StateError`."""
    end = asyncio.get_running_loop().time() + settings[lifetimes.TAKEOVER_WAIT]
    told = False
    while True:
        try:
            return await open_store(settings[relay.STATE_DIR] / STORE)
        except StoreHeld as held:
            if asyncio.get_running_loop().time() >= end:
                raise
            if not told:
                log.warning("waiting for the other caa node to end", reason=str(held))
            told = True
        await clock.sleep(_TAKEOVER_PAUSE)


def _limits(settings: Settings, provider: Provider) -> Limits:
    return Limits(start=settings[lifetimes.START_TIMEOUT], name=provider.capabilities.name_limit)


def _gc_rules(settings: Settings) -> Rules:
    """What the operator says about sweeps."""
    return Rules(
        enabled=settings[lifetimes.ENABLE_GC],
        interval=settings[lifetimes.GC_INTERVAL],
        grace=settings[lifetimes.GC_GRACE_PERIOD],
        dry_run=settings[lifetimes.GC_DRY_RUN],
    )


def _graces(settings: Settings) -> Graces:
    """What the operator says about sandboxes that nobody attends to."""
    return Graces(
        unstarted=settings[lifetimes.UNSTARTED_GRACE],
        unopened=settings[lifetimes.UNOPENED_GRACE],
        closed=settings[lifetimes.CLOSED_GRACE],
    )


def _owner(settings: Settings) -> Owner:
    return Owner(
        cluster=settings[identity.CLUSTER_ID] or own_cluster(settings[relay.STATE_DIR]),
        node=settings[identity.NODE_NAME] or socket.gethostname(),
    )


def _certificates(settings: Settings) -> Certificates | None:
    if settings[tls_rows.DISABLE_TLS]:
        return None
    cert, key = settings[tls_rows.CERT_FILE], settings[tls_rows.CERT_KEY]
    if cert is not None and key is not None:
        return ManualCertificates.load(settings[tls_rows.CACERT_FILE], cert, key_file=key)
    lifetime = timedelta(seconds=settings[tls_rows.CLIENT_CERT_LIFETIME])
    return NodeAuthority.load_or_create(settings[relay.STATE_DIR], client_lifetime=lifetime)


def _cert_rules(settings: Settings) -> CertificateRules:
    return CertificateRules(
        rotation=timedelta(seconds=settings[tls_rows.CA_ROTATION]),
        warning=timedelta(seconds=settings[tls_rows.CERT_WARNING]),
    )


def _guest(settings: Settings) -> GuestSettings:
    return GuestSettings(
        initdata=default_initdata(settings[node.INITDATA]),
        scratch_space=settings[node.ENABLE_SCRATCH_SPACE],
        external_net_via_podvm=settings[node.EXTERNAL_NETWORK_VIA_PODVM],
        allow_link_local=settings[node.LINK_LOCAL_ALLOW],
        tls_min_version=settings[tls_rows.TLS_MIN_VERSION],
        tls_cipher_suites=settings[tls_rows.TLS_CIPHER_SUITES],
    )


def _networking(settings: Settings) -> VxlanNetworking:
    return VxlanNetworking(
        host_interface=settings[node.HOST_INTERFACE],
        vxlan_port=settings[node.VXLAN_PORT],
        vxlan_min_id=settings[node.VXLAN_MIN_ID],
    )


def _links(settings: Settings, certificates: Certificates | None) -> RelayLinks:
    tls = LinkTls(
        port=settings[node.FORWARDER_PORT],
        certificates=certificates,
        min_version=settings[tls_rows.TLS_MIN_VERSION],
        cipher_suites=settings[tls_rows.TLS_CIPHER_SUITES],
        skip_verify=settings[tls_rows.TLS_SKIP_VERIFY],
    )
    return RelayLinks(
        socket_of(settings, "relay.sock"), settings[relay.PODS_DIR], tls=tls, dial_limit=settings[relay.PROXY_TIMEOUT]
    )


def socket_of(settings: Settings, name: str) -> Path:
    """The path of a socket between relay and node."""
    return settings[relay.RUN_DIR] / name
