"""Driver names and where each driver is found. The drivers themselves are imported only when one is asked for.

Built-in names are a static table of module names (strings, so `caa` never depends on `providers`); other drivers come
from the entry point group `caa.providers`, whose entries name a module of the same shape:

    SETTINGS: Sequence[Setting[Any]]            the rows an operator may set
    def make(settings: Settings) -> Provider    ConfigError when the settings cannot work; no I/O
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from caa.config.load import Settings
from caa.config.setting import AnySetting
from caa.errors import ConfigError
from caa.provider.contract import Provider

GROUP = "caa.providers"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "alibabacloud": "providers.alibabacloud",
        "aws": "providers.aws",
        "azure": "providers.azure",
        "byom": "providers.byom",
        "gcp": "providers.gcp",
        "ibmcloud": "providers.ibmcloud",
        "ibmcloud-powervs": "providers.ibmcloud_powervs",
        "libvirt": "providers.libvirt",
        "local": "providers.local",
    }
)
_EXTRAS: Mapping[str, str] = MappingProxyType({"ibmcloud-powervs": "ibmcloud"})  # where it is not the name itself


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that can be made: its name, its settings' rows, and its factory."""

    name: str
    settings: Sequence[AnySetting]
    make: Callable[[Settings], Provider]


def names(*, installed: Sequence[EntryPoint] | None = None) -> tuple[str, ...]:
    """Every name that `CLOUD_PROVIDER` may hold, sorted."""
    found = _installed() if installed is None else installed
    return tuple(sorted({*BUILT_IN, *(point.name for point in found)}))


def driver(
    name: str,
    *,
    installed: Sequence[EntryPoint] | None = None,
    built_in: Mapping[str, str] = BUILT_IN,
) -> Driver:
    """Import the driver called `name`; a built-in name cannot be taken over by an entry point.

    Raises `ConfigError`: an unknown name (the message lists those that are known), a driver or a library that is not
    installed, a module that is not a driver.
    """
    points = _installed() if installed is None else installed
    module = built_in.get(name) or next((point.module for point in points if point.name == name), "")
    if not module:
        known = ", ".join(sorted({*built_in, *(point.name for point in points)}))
        raise ConfigError(f"CLOUD_PROVIDER: {name!r} is not a known provider, allowed is one of {known}")
    return _loaded(name, module)


def _installed() -> Sequence[EntryPoint]:
    return tuple(entry_points(group=GROUP))


def _loaded(name: str, module: str) -> Driver:
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(_missing(name, module, missing=error.name or "")) from error
    rows, factory = getattr(found, "SETTINGS", None), getattr(found, "make", None)
    if rows is None or not callable(factory):
        raise ConfigError(f"the provider {name!r} is broken: the module {module} needs SETTINGS and make(settings)")
    return Driver(name=name, settings=tuple(rows), make=factory)


def _missing(name: str, module: str, *, missing: str) -> str:
    if missing and (module == missing or module.startswith(f"{missing}.")):
        return f"the provider {name!r} is not part of this build: there is no module {module}"
    extra = _EXTRAS.get(name, name)
    return f"the provider {name!r} needs the library {missing!r}: install the extra peerpods-caa[{extra}]"
