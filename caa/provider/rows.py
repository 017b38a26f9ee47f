"""Rows that several drivers share, under the names that the reference gave them, and ours. Rows only."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from caa.config import kinds
from caa.config.load import Settings
from caa.config.setting import AnySetting, Kind, Setting
from caa.errors import ConfigError
from caa.provider.clock import Clock
from caa.provider.pacing import Pacing, Rate

T = TypeVar("T")

ON_DEMAND, SPOT = "on-demand", "spot"


def disable_cvm(*, default: bool) -> Setting[bool]:
    """DISABLECVM; the reference's default differs by cloud."""
    return Setting(
        name="disable_cvm",
        env="DISABLECVM",
        flag="disable-cvm",
        kind=kinds.BOOL,
        default=default,
        live=True,
        help="Make ordinary pod VMs. Otherwise each is confidential, or is not made at all.",
    )


def root_volume_size(*, default: int) -> Setting[int]:
    """ROOT_VOLUME_SIZE in GiB; the reference's default differs by cloud."""
    return Setting(
        name="root_volume_size",
        env="ROOT_VOLUME_SIZE",
        flag="root-volume-size",
        kind=kinds.integer(0, 65536),
        default=default,
        live=True,
        help="Size of the pod VM's root disk, GiB; never less than the image's, 0 is the image's.",
    )


TAGS: Setting[Mapping[str, str]] = Setting(
    name="tags",
    env="TAGS",
    flag="tags",
    kind=kinds.TAGS,
    default=MappingProxyType({}),
    live=True,
    help="Tags on everything that is made for a pod VM, beside our own (caa-cluster, caa-node, caa-sandbox and so on).",
)
USE_PUBLIC_IP: Setting[bool] = Setting(
    name="use_public_ip",
    env="USE_PUBLIC_IP",
    flag="use-public-ip",
    kind=kinds.BOOL,
    default=False,
    live=True,
    help="Give each pod VM a public address, and reach it there.",
)
IMAGE_ALLOWLIST: Setting[tuple[str, ...]] = Setting(
    name="image_allowlist",
    env="IMAGE_ALLOWLIST",
    flag="image-allowlist",
    kind=kinds.LIST,
    default=("*",),
    live=True,
    help="Images that a pod may name in its annotation, as patterns with * and ?; the configured image is always "
    "allowed. `none` allows no other.",
)
TYPE_PRICES: Setting[Mapping[str, float]] = Setting(
    name="instance_type_prices",
    env="INSTANCE_TYPE_PRICES",
    flag="instance-type-prices",
    kind=kinds.AMOUNTS,
    default=MappingProxyType({}),
    live=True,
    help="Prices of instance types, such as m6a.large=0.0864. Of the types that fit a pod it gets the cheapest, one "
    "without a price only when no other fits. Empty takes the smallest that fits.",
)
SECURE_BOOT: Setting[bool] = Setting(
    name="enable_secure_boot",
    env="ENABLE_SECURE_BOOT",
    flag="enable-secure-boot",
    kind=kinds.BOOL,
    default=False,
    live=True,
    help="Secure boot (on Azure: of confidential and trusted-launch pod VMs); the image has to be signed for it.",
)
FALLBACK_TYPES: Setting[tuple[str, ...]] = Setting(
    name="fallback_types",
    env="FALLBACK_TYPES",
    flag="fallback-types",
    kind=kinds.LIST,
    default=(),
    live=True,
    help="Instance types to try in this order when the cloud has no room for the chosen one; those that are too small "
    "for the pod are passed over. A pod that names its type gets no other.",
)
FALLBACK_ZONES: Setting[tuple[str, ...]] = Setting(
    name="fallback_zones",
    env="FALLBACK_ZONES",
    flag="fallback-zones",
    kind=kinds.LIST,
    default=(),
    live=True,
    help="Zones (on AWS: subnets) to try in this order when the first has no room for any of the types.",
)
PURCHASE_OPTIONS: Setting[tuple[str, ...]] = Setting(
    name="purchase_options",
    env="PURCHASE_OPTIONS",
    flag="purchase-options",
    kind=kinds.list_of(kinds.choice(ON_DEMAND, SPOT).parse, f"{ON_DEMAND} and {SPOT}, in the order to try"),
    default=(ON_DEMAND,),
    live=True,
    help="How pod VMs are bought; a spot one may be taken away by the cloud at any moment, which ends its pod.",
)
FULL_FOR: Setting[float] = Setting(
    name="full_for",
    env="CLOUD_FULL_FOR",
    flag="cloud-full-for",
    kind=kinds.duration(),
    default=180.0,
    live=True,
    help="How long a type in a zone is passed over after the cloud had no room for it.",
)
CALLS_PER_SECOND: Setting[float] = Setting(
    name="calls_per_second",
    env="CLOUD_CALLS_PER_SECOND",
    flag="cloud-calls-per-second",
    kind=kinds.number(0.1, 1000),
    default=10.0,
    live=True,
    help="Calls of the cloud's API that this node sends a second, for all its pods; a cloud's limits are per account.",
)
CREATES_AT_ONCE: Setting[int] = Setting(
    name="creates_at_once",
    env="CLOUD_CREATES_AT_ONCE",
    flag="cloud-creates-at-once",
    kind=kinds.integer(1, 1000),
    default=20,
    live=True,
    help="Pod VMs that this node makes at a time; the others wait.",
)
CATALOGUE_DIR: Setting[Path] = Setting(
    name="catalogue_dir",
    env="CAA_CATALOGUE_DIR",
    flag="catalogue-dir",
    kind=kinds.PATH,
    default=Path("/var/lib/cloud-api-adaptor/catalogue"),
    help="Folder in which the clouds' instance types are kept from one start to the next.",
)
CATALOGUE_TTL: Setting[float] = Setting(
    name="catalogue_ttl",
    env="CAA_CATALOGUE_TTL",
    flag="catalogue-ttl",
    kind=kinds.duration(60.0),
    default=86400.0,
    help="Age at which instance types are fetched again; until they have come, the old ones serve.",
)

PLACING_ROWS: tuple[AnySetting, ...] = (FALLBACK_TYPES, FALLBACK_ZONES, FULL_FOR)
CLOUD_ROWS: tuple[AnySetting, ...] = (
    TAGS,
    USE_PUBLIC_IP,
    IMAGE_ALLOWLIST,
    TYPE_PRICES,
    *PLACING_ROWS,
    CALLS_PER_SECOND,
    CREATES_AT_ONCE,
    CATALOGUE_DIR,
    CATALOGUE_TTL,
)


def pacing(settings: Settings, clock: Clock) -> Pacing:
    """The budget of calls that the rows describe; a second's worth may go at once."""
    per_second = settings[CALLS_PER_SECOND]
    rate = Rate(per_second=per_second, burst=max(1, int(per_second)), creates=settings[CREATES_AT_ONCE])
    return Pacing(rate, clock)


def refuse_zones(settings: Settings, kind: Kind[str]) -> None:
    """Raise `ConfigError` for an item of FALLBACK_ZONES that is not of the kind of the cloud's own row for its zone."""
    for one in settings[FALLBACK_ZONES]:
        try:
            kind.parse(one)
        except ValueError as error:
            allowed = kind.allowed.removesuffix(", or nothing")
            raise ConfigError(
                f"FALLBACK_ZONES: {one[:80]!r} is not valid here, each item has to be {allowed}"
            ) from error


def given(settings: Settings, row: Setting[T]) -> T:
    """The value of a row of the node, or its default where only the driver's rows were loaded."""
    if row in settings:
        return settings[row]
    return row.default
