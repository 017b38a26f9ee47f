"""libvirt's errors, as they were seen on libvirt 9.0, in our words."""

import pytest

from caa.errors import (
    CapacityError,
    CredentialsError,
    InvalidRequest,
    Misconfigured,
    NotSupported,
    ProviderError,
    ProviderUnavailable,
)
from providers.libvirt.faults import Busy, ConnectionLost, KvmUnusable, sorted_error

SEEN = [
    (38, 10, "cannot set up guest memory 'pc.ram': Cannot allocate memory", CapacityError, "memory"),
    (2, 0, "out of memory", CapacityError, "memory"),
    (38, 18, "cannot write data to file '/pool/x': No space left on device", CapacityError, "LIBVIRT_POOL"),
    (
        38,
        7,
        "Failed to connect socket to '/run/libvirt/libvirt-sock': Connection refused",
        ConnectionLost,
        "LIBVIRT_URI",
    ),
    (38, 7, "Cannot recv data: ssh: connect to host h port 22: No route to host", ConnectionLost, "LIBVIRT_URI"),
    (
        38,
        7,
        "Cannot recv data: Host key verification failed.: Connection reset by peer",
        CredentialsError,
        "LIBVIRT_URI",
    ),
    (
        38,
        7,
        "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied",
        CredentialsError,
        "LIBVIRT_URI",
    ),
    (45, 7, "authentication failed: no agent", CredentialsError, "LIBVIRT_URI"),
    (88, 60, "access denied: 'QEMU' denied", CredentialsError, "LIBVIRT_URI"),
    (1, 7, "internal error: client socket is closed", ConnectionLost, "LIBVIRT_URI"),
    (39, 7, "internal error: received hangup event on socket", ConnectionLost, ""),
    (67, 10, "unsupported configuration: SEV is not supported with this QEMU binary", Misconfigured, "host cannot"),
    (92, 0, "XML document failed to validate against schema", Misconfigured, "version of libvirt"),
    (35, 20, "XML error: loader attribute 'readonly' cannot be specified", InvalidRequest, ""),
    (
        1,
        10,
        "operation failed: Unable to find 'efi' firmware that is compatible",
        Misconfigured,
        "LIBVIRT_EFI_FIRMWARE",
    ),
    (1, 18, "internal error: pool 'default' has asynchronous jobs running.", Busy, "LIBVIRT_POOL"),
    (1, 10, "qemu-system-x86_64: failed to initialize kvm: Permission denied", KvmUnusable, "LIBVIRT_ACCELERATION"),
    (
        1,
        10,
        "internal error: process exited while connecting to monitor: qemu: could not open kernel file '/x': No such",
        Misconfigured,
        "LIBVIRT_KERNEL",
    ),
    (1, 10, "internal error: qemu: linux kernel too old to load a ram disk", Misconfigured, "LIBVIRT_KERNEL"),
    (1, 10, "internal error: qemu: error reading initrd /x: Failed to open file", Misconfigured, "LIBVIRT_INITRD"),
    (43, 19, "Network not found", Misconfigured, "LIBVIRT_NET"),
    (3, 18, "this function is not supported by the connection driver", NotSupported, "LIBVIRT_URI"),
    (68, 10, "Timed out during operation: cannot acquire state change lock", ProviderUnavailable, ""),
    (
        1,
        10,
        'process exited while connecting to monitor: qemu-system-x86_64: -device {}: Failed to get "write" lock',
        ProviderUnavailable,
        "another VM uses one of its volumes",
    ),
    (
        1,
        18,
        "internal error: Child process (qemu-img create) unexpected exit status 1: Could not open backing image",
        Misconfigured,
        "LIBVIRT_VOL_NAME",
    ),
    (38, 18, "Failed to create file '/pool/x-console.log': No such file or directory", Misconfigured, "LIBVIRT_POOL"),
    (38, 18, "cannot open directory '/pool': No such file or directory", Misconfigured, "LIBVIRT_POOL"),
    (38, 0, "cannot set CPU affinity on process 5072: Invalid argument", Misconfigured, "LIBVIRT_CPUSET"),
    (1, 10, "something new", ProviderError, "something new"),
]


@pytest.mark.parametrize(("code", "domain", "message", "kind", "word"), SEEN)
def test_errors(code: int, domain: int, message: str, kind: type[ProviderError], word: str) -> None:
    error = sorted_error(code, domain, message=message)
    assert type(error) is kind
    assert word in str(error)
    assert message in str(error)


def test_no_memory_and_no_disk_are_told_apart() -> None:
    memory = sorted_error(38, 10, message="Cannot allocate memory")
    disk = sorted_error(38, 18, message="No space left on device")
    assert memory.retryable
    assert disk.retryable
    assert "storage pool" in str(disk)
    assert "storage pool" not in str(memory)
