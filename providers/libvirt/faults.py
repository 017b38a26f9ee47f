"""What libvirt's errors mean for us: its numbers and texts in, one of our errors out; pure.

The numbers are `virErrorNumber` and `virErrorDomain` of libvirt/virterror.h, which never change.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from caa.errors import (
    CapacityError,
    CredentialsError,
    InvalidRequest,
    Misconfigured,
    NotSupported,
    ProviderError,
    ProviderUnavailable,
)

NO_SUPPORT: Final = 3
INVALID_ARGUMENT: Final = 8
NO_DOMAIN: Final = 42
NO_NETWORK: Final = 43
NO_POOL: Final = 49
NO_VOLUME: Final = 50
NO_METADATA: Final = 80

_NO_MEMORY, _SYSTEM, _RPC_ERROR = 2, 38, 39
_FROM_RPC, _FROM_REMOTE = 7, 13


class ConnectionLost(ProviderUnavailable):
    """The daemon went away, or cannot be reached; what was being done may or may not have been done. Stays in here."""


class Busy(ProviderUnavailable):
    """Somebody else works on the pool; in a moment it goes. Stays in here."""


class KvmUnusable(ProviderError):
    """QEMU says that the host's KVM, which libvirt offered, does not work. Stays in here."""


_MEMORY_TEXTS: Sequence[str] = ("cannot allocate memory", "cannot set up guest memory", "out of memory")
_DISK_TEXTS: Sequence[str] = ("no space left on device", "disk quota exceeded", "not enough space")
_KVM_TEXTS: Sequence[str] = (
    "failed to initialize kvm",
    "could not access kvm",
    "kvm_buf_set_msrs",
    "kvm_arch_",
    "ioctl(kvm_",
)
_KERNEL_TEXTS: Sequence[str] = (  # hw/i386/x86.c, hw/arm/boot.c and hw/core/loader.c of QEMU
    "could not open kernel file",
    "could not load kernel",
    "could not load the kernel",
    "kernel too old",
    "invalid kernel header",
    "without pvh elf note",
    "error reading initrd",
    "could not load initrd",
    "could not load initial ram disk",
)
_RIGHTS_TEXTS: Sequence[str] = ("host key verification failed", "authentication failed", "access denied")
_IMAGE_TEXTS: Sequence[str] = ("could not open backing",)
_FOLDER_TEXTS: Sequence[str] = ("failed to create file", "cannot open directory", "read-only file system")
_IN_USE_TEXTS: Sequence[str] = ('failed to get "write" lock', 'failed to get shared "write" lock')
_LOST_TEXTS: Sequence[str] = (
    "client socket is closed",
    "end of file while reading data",
    "cannot recv data",
    "cannot write data",
    "unable to connect to server",
    "failed to connect socket",
    "connection closed due to keepalive timeout",
    "connection reset by peer",
    "broken pipe",
)
_KINDS: Mapping[int, tuple[type[ProviderError], str]] = MappingProxyType(
    {
        NO_SUPPORT: (NotSupported, "this libvirt driver cannot do it (LIBVIRT_URI)"),
        6: (ConnectionLost, ""),  # invalid connection
        _RPC_ERROR: (ConnectionLost, ""),
        45: (CredentialsError, "libvirt did not accept us (LIBVIRT_URI)"),
        79: (CredentialsError, "libvirt did not accept us (LIBVIRT_URI)"),
        88: (CredentialsError, "libvirt does not allow it (LIBVIRT_URI)"),
        27: (InvalidRequest, ""),  # XML error
        35: (InvalidRequest, ""),  # XML detail
        67: (Misconfigured, "the libvirt host cannot make such a VM"),
        92: (Misconfigured, "this version of libvirt does not know such a VM"),
        NO_NETWORK: (Misconfigured, "LIBVIRT_NET"),
        NO_POOL: (Misconfigured, "LIBVIRT_POOL"),
        NO_VOLUME: (Misconfigured, "LIBVIRT_VOL_NAME"),
        68: (ProviderUnavailable, ""),  # operation timed out
        87: (ProviderUnavailable, ""),  # resource busy
    }
)


def sorted_error(code: int, domain: int, *, message: str) -> ProviderError:
    """Our error for one of libvirt's. What has no memory and what has no disk are told apart by libvirt's words."""
    low = message.lower()
    if code == _NO_MEMORY or _has(low, _MEMORY_TEXTS):
        return CapacityError(f"the libvirt host has not enough memory: {message}")
    if _has(low, _DISK_TEXTS):
        return CapacityError(f"the storage pool has no room (LIBVIRT_POOL): {message}")
    if _has(low, _RIGHTS_TEXTS) or ("permission denied" in low and domain in (_FROM_RPC, _FROM_REMOTE)):
        return CredentialsError(f"libvirt did not accept us (LIBVIRT_URI): {message}")
    if _has(low, _LOST_TEXTS) or (code == _SYSTEM and domain in (_FROM_RPC, _FROM_REMOTE)):
        return ConnectionLost(f"libvirt does not answer (LIBVIRT_URI): {message}")
    if "asynchronous jobs running" in low:
        return Busy(f"the storage pool is being worked on (LIBVIRT_POOL): {message}")
    if _has(low, _IN_USE_TEXTS):
        return ProviderUnavailable(f"another VM uses one of its volumes, end that VM first: {message}")
    if _has(low, _KVM_TEXTS):
        return KvmUnusable(f"KVM does not work on the libvirt host; LIBVIRT_ACCELERATION=qemu emulates: {message}")
    if _has(low, _KERNEL_TEXTS):
        return Misconfigured(
            "LIBVIRT_KERNEL, LIBVIRT_INITRD: QEMU cannot load them; they are paths on the libvirt host, of a kernel "
            f"for its architecture and an initramfs: {message}"
        )
    if _has(low, _IMAGE_TEXTS):
        return Misconfigured(
            "the image (LIBVIRT_VOL_NAME, or the annotation image) cannot be opened, or lies on a file that is not "
            f"there: see qemu-img info --backing-chain on the libvirt host: {message}"
        )
    if _has(low, _FOLDER_TEXTS):
        return Misconfigured(f"the storage pool's folder cannot be used (LIBVIRT_POOL): {message}")
    if "cannot set cpu affinity" in low:
        return Misconfigured(f"LIBVIRT_CPUSET: the libvirt host has none of these CPUs: {message}")
    if "unable to find any firmware" in low or "unable to find 'efi' firmware" in low:
        return Misconfigured(f"LIBVIRT_EFI_FIRMWARE: {message}; install a UEFI firmware (ovmf) on the libvirt host")
    kind, about = _KINDS.get(code, (ProviderError, ""))
    return kind(f"{about}: {message}" if about else message)


def _has(message: str, texts: Sequence[str]) -> bool:
    return any(one in message for one in texts)
