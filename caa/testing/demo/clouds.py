"""What a driver needs around it before the demo can use it: nothing for `local`, a libvirtd for `libvirt`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from caa.errors import ConfigError
from caa.testing.libvirtd import Libvirtd

T = TypeVar("T")
_BRIDGE = "caalv150"
_KERNEL, _INITRD, _CMDLINE = "vmlinux", "initrd.cpio", "cmdline"


def _nothing() -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Cloud:
    """The settings that name it to the driver, folders that are empty without pods, and what else it has left."""

    settings: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()
    left: Callable[[], Sequence[str]] = _nothing
    identity: Callable[[str], str] = str  # the instance's id, by its name


@asynccontextmanager
async def opened(provider: str, folder: Path, *, image: Path | None) -> AsyncIterator[Cloud]:
    """The cloud of a driver, there for as long as the block. `folder` is empty, its path short."""
    if provider != "libvirt":
        yield Cloud()
        return
    if image is None or not (image / _KERNEL).is_file():
        raise ConfigError(
            f"--image: {image or 'nothing given'} is no folder with {_KERNEL}, {_INITRD} and {_CMDLINE}; "
            "`make image IMAGE=tiny` makes one in .cache/image/tiny, `make demo PROVIDER=libvirt` does both"
        )
    place = await asyncio.to_thread(image.resolve)
    with Libvirtd(folder, cache=place.parents[1] / "libvirtd", callers_network=True) as daemon:
        daemon.define_pool_and_network()
        yield Cloud(
            _settings(daemon, place),
            [daemon.pool],
            lambda: _asked(daemon, _left),
            lambda name: _asked(daemon, lambda connection: str(connection.lookupByName(name).UUIDString())),
        )


def _settings(daemon: Libvirtd, image: Path) -> Mapping[str, str]:
    return {
        "LIBVIRT_URI": daemon.uri,
        "LIBVIRT_KERNEL": str(image / _KERNEL),
        "LIBVIRT_INITRD": str(image / _INITRD),
        "LIBVIRT_CMDLINE": (image / _CMDLINE).read_text().strip(),
        "HOST_INTERFACE": _BRIDGE,  # the network is isolated, its guests have no default route
        "LIBVIRT_CPU": "1",
        "LIBVIRT_MEMORY": "512",
        "LIBVIRT_EFI_FIRMWARE": "none",
        "DISABLECVM": "true",
    }


def _left(connection: Any) -> Sequence[str]:
    """Domains and volumes as libvirt knows them."""
    domains = [f"domain {one.name()}" for one in connection.listAllDomains()]
    return domains + [f"volume {one}" for one in connection.storagePoolLookupByName("default").listVolumes()]


def _asked(daemon: Libvirtd, question: Callable[[Any], T]) -> T:
    import libvirt  # noqa: PLC0415  # optional: the extra `libvirt`

    connection = libvirt.open(daemon.uri)
    try:
        return question(connection)
    finally:
        connection.close()
