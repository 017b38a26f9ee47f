"""Rows of how long things may last on a node: starts, the drain, what nobody attends to, what nobody owns.

All but one may change while the node runs. "0" turns a grace period off where its help says so.
"""

from caa.config.kinds import BOOL, duration
from caa.config.setting import AnySetting, Setting

START_TIMEOUT: Setting[float] = Setting(
    name="start_timeout",
    env="START_TIMEOUT",
    flag="start-timeout",
    kind=duration(1.0),
    default=600.0,
    live=True,
    help="Bound of a StartVM that carries a longer deadline or none: 600 s is the Go shim's own, runtime-rs asks for "
    "10 000 s.",
)
DRAIN_GRACE: Setting[float] = Setting(
    name="drain_grace",
    env="DRAIN_GRACE",
    flag="drain-grace",
    kind=duration(),
    default=20.0,
    live=True,
    help="How long a node that is told to end lets running starts and stops finish; starts that do not are undone, and "
    "the next node takes them anew. Keep it below terminationGracePeriodSeconds.",
)
TAKEOVER_WAIT: Setting[float] = Setting(
    name="takeover_wait",
    env="TAKEOVER_WAIT",
    flag="takeover-wait",
    kind=duration(),
    default=0.0,
    help="How long a node that starts waits for another one on the same state directory to end, as in a roll-out that "
    "starts the new pod first; 0 refuses at once.",
)
UNSTARTED_GRACE: Setting[float] = Setting(
    name="unstarted_grace",
    env="UNSTARTED_GRACE",
    flag="unstarted-grace",
    kind=duration(),
    default=600.0,
    live=True,
    help="After how long a sandbox that was created and never started, or whose start failed, is forgotten; 0 never. "
    "No pod VM exists for it.",
)
UNOPENED_GRACE: Setting[float] = Setting(
    name="unopened_grace",
    env="UNOPENED_GRACE",
    flag="unopened-grace",
    kind=duration(),
    default=120.0,
    live=True,
    help="After how long a started pod VM whose agent socket no shim has opened is removed; 0 never. Both shims give "
    "up dialling after 30 s.",
)
CLOSED_GRACE: Setting[float] = Setting(
    name="closed_grace",
    env="CLOSED_GRACE",
    flag="closed-grace",
    kind=duration(),
    default=60.0,
    live=True,
    help="After how long a pod VM whose shim has closed its agent connection without a StopVM, as a killed shim does, "
    "is removed; 0 never. A living shim sends StopVM within milliseconds.",
)
ENABLE_GC: Setting[bool] = Setting(
    name="enable_gc",
    env="ENABLE_GC",
    flag="enable-gc",
    kind=BOOL,
    default=True,
    live=True,
    help="Sweep for pod VMs with this node's tags that no sandbox knows.",
)
GC_INTERVAL: Setting[float] = Setting(
    name="gc_interval",
    env="GC_INTERVAL",
    flag="gc-interval",
    kind=duration(1.0),
    default=1800.0,
    live=True,
    help="Time between two sweeps.",
)
GC_GRACE_PERIOD: Setting[float] = Setting(
    name="gc_grace_period",
    env="GC_GRACE_PERIOD",
    flag="gc-grace-period",
    kind=duration(),
    default=600.0,
    live=True,
    help="Age below which a sweep removes nothing.",
)
GC_DRY_RUN: Setting[bool] = Setting(
    name="gc_dry_run",
    env="GC_DRY_RUN",
    flag="gc-dry-run",
    kind=BOOL,
    default=False,
    live=True,
    help="Let a sweep only say in the log what it would remove.",
)

LIFETIME_ROWS: tuple[AnySetting, ...] = (
    START_TIMEOUT,
    DRAIN_GRACE,
    TAKEOVER_WAIT,
    UNSTARTED_GRACE,
    UNOPENED_GRACE,
    CLOSED_GRACE,
    ENABLE_GC,
    GC_INTERVAL,
    GC_GRACE_PERIOD,
    GC_DRY_RUN,
)
