"""Pod VMs as libvirt domains, on this machine or over ssh: QEMU with KVM, confidential where the host can, or emulated.

Read `translate.py` (what is asked for), `domain.py` (the XML), `client.py` (each act of libvirt), then `provider.py`.
`connection.py` keeps the connection, `sight.py` reads domains, `faults.py` sorts libvirt's errors, `facts.py` reads
what the host can, `seed.py` makes the disk with the user data, `checks.py` says what is wrong. For operators:
`docs/providers/libvirt.md`.
"""

from caa.config.load import Settings
from caa.errors import ConfigError
from caa.provider.clock import Clock, RealClock
from caa.provider.contract import Provider
from caa.provider.threads import Threads
from providers.libvirt import settings, translate
from providers.libvirt.client import Host
from providers.libvirt.connection import Connection
from providers.libvirt.provider import LibvirtProvider

SETTINGS = settings.SETTINGS


def make(values: Settings) -> Provider:
    """The driver for these settings; nothing is opened yet. Raises `ConfigError` when they contradict each other."""
    return provider(values, Connection(values[settings.URI]))


def provider(values: Settings, connection: Connection, *, clock: Clock | None = None) -> LibvirtProvider:
    """The driver over a given connection, and clock."""
    if problem := settings.problem(values):
        raise ConfigError(problem)
    return LibvirtProvider(
        Host(connection, acceleration=values[settings.ACCELERATION]),
        site(values),
        threads=Threads(values[settings.CALLS], "libvirt"),
        clock=clock or RealClock(),
        address_timeout=values[settings.ADDRESS_TIMEOUT],
    )


def site(values: Settings) -> translate.Site:
    """The settings as the driver uses them."""
    direct = values[settings.KERNEL] is not None
    return translate.Site(
        pool=values[settings.POOL],
        network=values[settings.NETWORK],
        volume="" if direct and not values.is_set(settings.VOLUME) else values[settings.VOLUME],
        images=values[settings.IMAGES],
        tags=values[settings.TAGS],
        launch=values[settings.LAUNCH_SECURITY],
        policy=values[settings.LAUNCH_POLICY],
        confidential=not values[settings.DISABLE_CVM],
        firmware=values[settings.FIRMWARE],
        firmware_vars=str(values[settings.FIRMWARE_VARS] or ""),
        secure_boot=values[settings.SECURE_BOOT],
        tpm=values[settings.TPM],
        vcpus=values[settings.CPU],
        memory_mib=values[settings.MEMORY],
        overcommit=values[settings.OVERCOMMIT],
        cpuset=values[settings.CPUSET],
        root_bytes=(values[settings.ROOT_DISK_SIZE] or 10) * translate.GIB,
        kernel=str(values[settings.KERNEL] or ""),
        initrd=str(values[settings.INITRD] or ""),
        cmdline=values[settings.CMDLINE],
    )
