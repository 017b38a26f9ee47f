"""What a driver needs around it before the demo can use it.

Nothing for `local`, a libvirtd for `libvirt`, a fake cloud of `tests/fakes` in a process of its own for the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from caa.errors import ConfigError
from caa.testing.demo.daemons import Paths
from caa.testing.demo.fake import Fake
from caa.testing.libvirtd import Libvirtd

T = TypeVar("T")
FAKED = ("aws", "azure", "gcp")
KNOWN = ("local", "libvirt", *FAKED)
# Settings of the clouds' SDKs, and proxies: the caller's account is none of the demo's business.
_STRANGERS = ("AWS_", "AZURE_", "GCP_", "GOOGLE_", "CLOUDSDK_", "http", "HTTP", "ALL_PROXY", "all_proxy", "PODVM_")
_NO_FILES: Mapping[str, str] = MappingProxyType(
    {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
)
_BRIDGE = "caalv150"
_KERNEL, _INITRD, _CMDLINE = "vmlinux", "initrd.cpio", "cmdline"


def _nothing() -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Cloud:
    """The daemons' environment with the settings that name it, folders empty without pods, and what else is left."""

    environ: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()
    left: Callable[[], Sequence[str]] = _nothing
    identity: Callable[[str], str] = str  # the instance's id, by its name
    machine: Callable[[str], str] = str  # what it is called on this node, by its name
    console: Callable[[str], Path] | None = None  # a real VM's console log, by its name


def apart(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without whatever could reach a real account of the caller's."""
    kept = {key: value for key, value in environ.items() if not key.startswith(_STRANGERS)}
    return {**kept, **_NO_FILES}


@asynccontextmanager
async def opened(
    provider: str, paths: Paths, *, image: Path | None, environ: Mapping[str, str]
) -> AsyncIterator[Cloud]:
    """The cloud of a driver, there for as long as the block; `environ` is the caller's."""
    if provider == "libvirt":
        async with _libvirt(paths.top / "c", image=image, environ=environ) as cloud:
            yield cloud
    elif provider in FAKED:
        async with Fake.started(provider, paths, environ=apart(environ)) as fake:
            yield Cloud(
                environ={**apart(environ), **fake.settings, "CAA_CATALOGUE_DIR": str(paths.top / "catalogue")},
                left=fake.left,
                identity=fake.identity,
                machine=lambda name: fake.identity(name).rpartition("/")[2],
            )
    else:
        yield Cloud(environ)


@asynccontextmanager
async def _libvirt(folder: Path, *, image: Path | None, environ: Mapping[str, str]) -> AsyncIterator[Cloud]:
    """`folder` is empty, its path short."""
    if image is None or not (image / _KERNEL).is_file():
        raise ConfigError(
            f"--image: {image or 'nothing given'} is no folder with {_KERNEL}, {_INITRD} and {_CMDLINE}; "
            "`make image IMAGE=tiny` makes one in .cache/image/tiny, `make demo PROVIDER=libvirt` does both"
        )
    place = await asyncio.to_thread(image.resolve)
    with Libvirtd(folder, cache=place.parents[1] / "libvirtd", callers_network=True) as daemon:
        daemon.define_pool_and_network()
        yield Cloud(
            environ={**environ, **_settings(daemon, place)},
            folders=[daemon.pool],
            left=lambda: _asked(daemon, _left),
            identity=lambda name: _asked(daemon, lambda connection: str(connection.lookupByName(name).UUIDString())),
            console=lambda name: daemon.pool / f"{name}-console.log",
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
