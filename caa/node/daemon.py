"""The control plane as a process: what is started, in which order, what is watched, and how it ends.

Sockets answer before anything slow is asked: the store is read, the inner socket listens, then come firewall rules,
cloud and relay. `caa.node.parts` chooses the classes.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from caa.config import identity, node, relay
from caa.config.lifetimes import DRAIN_GRACE
from caa.config.load import Loaded, Settings
from caa.errors import ConfigError, ProviderError, StateError
from caa.logs import configure
from caa.model.instance import Severity
from caa.node.hypervisor_api import HypervisorApi, announce_on
from caa.node.parts import Parts, assembled, socket_of
from caa.node.podvminfo_api import PodVMInfoApi
from caa.node.probe import Probe
from caa.node.reload import Read, Reload
from caa.node.reload import watch as watch_settings
from caa.node.stops import StopFiles, stop_recorded, watch
from caa.sandbox import strangers
from caa.wire.server import Server

log = structlog.get_logger(__name__)

SOCKET = "node.sock"
_SETTLED = 2.0  # seconds from the return of the host interface to that of its addresses
_TOLERATED = 900.0  # seconds; a call of the cloud that never returns must not be the last sweep
_CLOSING = 5.0  # seconds for a driver to let go of its connections; the kubelet waits 30 s for all of the end
_CHECKING = 60.0  # seconds for CLOUD_CONFIG_VERIFY; running pods are looked at after it
_UNDOING_SHARE = 1 / 3  # of DRAIN_GRACE is kept for the undoing of starts that did not finish


async def run(settings: Settings, read: Read | None = None) -> None:
    """Serve until SIGTERM or SIGINT; records stay for the next process. Raises `ConfigError` and `StateError`.

    `read` loads the settings again, for those that may change while we run.
    """
    signals = _Signals()
    async with AsyncExitStack() as stack:
        parts = await _unless_ended(assembled(settings), signals.end)
        if parts is None:
            return
        _close_at_the_end(parts, stack)
        await _Daemon(settings, parts, signals, read or (lambda: settings)).run(stack)


async def _unless_ended(making: Coroutine[Any, Any, Parts], end: asyncio.Event) -> Parts | None:
    """The parts, or None when we are told to end while we wait for the store."""
    made, told = asyncio.create_task(making), asyncio.create_task(end.wait())
    try:
        await asyncio.wait({made, told}, return_when=asyncio.FIRST_COMPLETED)
        return made.result() if made.done() else None
    finally:
        await _cancelled(told, *(task for task in (made,) if not task.done()))


class _Signals:
    """What the process was told: to end (SIGTERM, SIGINT), or to read its settings again (SIGHUP)."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.reload = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)


def _close_at_the_end(parts: Parts, stack: AsyncExitStack) -> None:
    """Last in, first out: the service's tasks end before what they use."""
    stack.push_async_callback(parts.store.close)
    stack.push_async_callback(parts.networking.close)
    stack.push_async_callback(_tolerated, "close the driver", parts.provider.close, limit=_CLOSING)
    stack.push_async_callback(parts.links.disconnect)
    stack.push_async_callback(parts.service.close)


@dataclass(slots=True)
class _Daemon:
    settings: Settings
    parts: Parts
    signals: _Signals
    read: Read
    ready: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # told when settings have changed

    async def run(self, stack: AsyncExitStack) -> None:
        incomplete = bool(self.parts.store.incomplete)
        stops = StopFiles(self.settings[relay.STATE_DIR], kept=incomplete)
        await self.parts.service.load()
        provider, forgotten = self.settings[identity.CLOUD_PROVIDER], self.settings[identity.FORGET_PROVIDER]
        await strangers.settle(self.parts.service, provider, forgotten=forgotten)
        if incomplete:
            await self.parts.rebuild.spare_tunnels()
        await self.parts.recovery.at_once()
        await stop_recorded(self.parts.service, stops)
        await self._serve(stack, stops)
        await self._serve_probe(stack)
        self.ready = True
        log.info("caa node serves", socket=str(socket_of(self.settings, SOCKET)))
        await self._until_the_end(stops)
        log.info("caa node ends")

    async def _serve(self, stack: AsyncExitStack, stops: StopFiles) -> None:
        hypervisor = HypervisorApi(self.parts.service, stops, announce=announce_on())
        server = Server({**hypervisor.handlers(), **PodVMInfoApi(self.parts.service).handlers()})
        stack.push_async_callback(self._undo_starts)
        stack.push_async_callback(server.close)
        stack.callback(self.parts.service.closing)  # runs first: hanging up on callers must not undo their starts
        path = socket_of(self.settings, SOCKET)
        if not path.parent.is_dir():
            raise StateError(f"there is no folder {path.parent}: start `caa relay` first, with the same CAA_RUN_DIR")
        await server.listen(str(path))

    async def _serve_probe(self, stack: AsyncExitStack) -> None:
        port = self.settings[node.PROBE_PORT]
        if port:
            probe = Probe({"/startup": self._startup, "/healthz": lambda: ""})
            stack.push_async_callback(probe.close)
            await probe.listen(port)

    def _startup(self) -> str:
        return "" if self.ready else "caa node is starting"

    async def _until_the_end(self, stops: StopFiles) -> None:
        """Run the background work until told to end; work that fails ends the process with its error."""
        works = [
            self._background(stops),
            watch(self.parts.service, stops),
            self.parts.abandonment.forever(),
            self.parts.outages.forever(),
            self.parts.upkeep.forever(),
            self._mend(),
            self._reload(),
        ]
        tasks = [asyncio.create_task(work) for work in works]
        told = asyncio.create_task(self.signals.end.wait())
        try:
            pending = {told, *tasks}
            while told in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await self._drain()
        finally:
            await _cancelled(told, *tasks)

    async def _drain(self) -> None:
        """Told to end: no new starts; what runs may finish."""
        grace = self.settings[DRAIN_GRACE]
        log.info("caa node drains", grace_s=grace)
        await self.parts.service.drain(grace * (1 - _UNDOING_SHARE))

    async def _undo_starts(self) -> None:
        """The callers are hung up on by now, and the relay keeps their calls for the next process."""
        await self.parts.service.undo_starts(self.settings[DRAIN_GRACE] * _UNDOING_SHARE)

    async def _background(self, stops: StopFiles) -> None:
        """What may be slow: firewall, cloud, relay; then sweep for orphans for ever."""
        await _tolerated("notrack rules", self.parts.networking.start)
        if self.settings[node.CLOUD_CONFIG_VERIFY]:
            await self._verify()
        if stops.kept:  # records may be missing; `watch` then acts on what was recorded meanwhile
            await self.parts.rebuild.until_done(self.parts.store.incomplete)
            await _tolerated("note that the store is complete", self.parts.store.mark_complete)
            stops.kept = False
        await self.parts.recovery.running()
        while True:
            if self.parts.sweep.rules.enabled:
                await _tolerated("sweep for orphans", self.parts.sweep.once)
            await self._pause(self.parts.sweep.rules.interval)

    async def _mend(self) -> None:
        """Each time that the node's interface comes back: build what is missing of the pods' tunnels."""
        await _tolerated("watch for the host interface's return", self._mend_forever, limit=None)
        await asyncio.Event().wait()

    async def _mend_forever(self) -> None:
        async for interface in self.parts.networking.flaps():
            await self._pause(_SETTLED)
            records = self.parts.service.records()
            log.warning("the host interface came back, looking at the tunnels", interface=interface, pods=len(records))
            for record in records:
                await _tolerated("mend the tunnel", partial(self.parts.service.repair_network, record.id))

    async def _pause(self, seconds: float) -> None:
        """Changed settings end it early."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()

    async def _reload(self) -> None:
        reload = Reload(self.settings, self.read, self._apply)
        await watch_settings(reload, self.settings[relay.CONFIG_DIR], told=self.signals.reload)

    def _apply(self, settings: Settings, changed: Sequence[Loaded]) -> None:
        self.parts.apply(settings, changed)
        secrets = (*self.settings.secrets(), *settings.secrets())  # a call under way may still tell an old one
        configure(settings[node.LOG_LEVEL], settings[node.LOG_FORMAT], secrets=secrets)
        self.settings = settings
        self.changed.set()
        self.changed = asyncio.Event()

    async def _verify(self) -> None:
        """What the cloud refuses ends the process; a cloud that cannot be asked does not, for pods may run."""
        try:
            async with asyncio.timeout(_CHECKING):
                findings = await self.parts.provider.check()
        except Exception as error:
            if isinstance(error, ProviderError) and not error.retryable:
                raise ConfigError(f"CLOUD_CONFIG_VERIFY: the cloud refused the check: {error}") from error
            log.error("CLOUD_CONFIG_VERIFY: the cloud could not be asked", error=f"{type(error).__name__}: {error}")
            return
        for finding in findings:
            tell = log.info if finding.severity is Severity.OK else log.warning
            about = {"subject": finding.subject, "detail": finding.detail, "remedy": finding.remedy}
            tell("checked", severity=finding.severity, **about)
        bad = [one for one in findings if one.severity is Severity.ERROR]
        if bad:
            told = (f"{one.subject}: {one.detail}" + (f" -> {one.remedy}" if one.remedy else "") for one in bad)
            raise ConfigError("CLOUD_CONFIG_VERIFY found: " + "; ".join(told))


async def _tolerated(what: str, act: Callable[[], Awaitable[Any]], *, limit: float | None = _TOLERATED) -> None:
    """Do what pods can live without; a failure is told once here and tried again by whoever comes next."""
    try:
        async with asyncio.timeout(limit):
            await act()
    except Exception as error:  # also a driver's that breaks its contract: pods run on without
        log.error("failed, going on without", what=what, error=f"{type(error).__name__}: {error}")


async def _cancelled(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
