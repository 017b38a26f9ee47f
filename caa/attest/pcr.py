"""Predicted PCR values (SHA-256 bank) of a pod VM, from its UKI and the initdata digest. Pure.

PCR 4 and 11 as EDK2 and systemd-stub extend them (`systemd-stub(7)`), PCR 8 as process-user-data does it.
"""

import hashlib
from collections.abc import Iterable

from caa.attest import pe
from caa.errors import InvalidInput

ZERO = bytes(32)
_BOOT_ACTION = b"Calling EFI Application from Boot Option"
_SEPARATOR = bytes(4)
# What systemd-stub measures, in its order (`unified_sections` in its source, 257).
_MEASURED = (".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey")


def extended(values: Iterable[bytes], start: bytes = ZERO) -> bytes:
    """A PCR after these digests."""
    for value in values:
        start = hashlib.sha256(start + value).digest()
    return start


def boot(uki: bytes, *, secure_boot: bool = False) -> bytes:
    """PCR 4: the firmware starts the UKI from a boot option, and the UKI starts its kernel.

    With Secure Boot on, systemd-stub stands in for the firmware's check of that kernel, and so for its measurement too
    (seen with EDK2 2022.11 and systemd 257); the kernel is a part of the UKI all the same.
    """
    image = pe.parse(uki)
    kernel = image.section(".linux")
    if kernel is None:
        raise InvalidInput("not a UKI: it has no section .linux")
    events = [_digest(_BOOT_ACTION), _digest(_SEPARATOR), pe.authenticode(image)]
    return extended(events if secure_boot else [*events, pe.authenticode(pe.parse(kernel))])


def unified_kernel(uki: bytes) -> bytes:
    """PCR 11: name and content of each measured section; no boot phases, since the image masks their units."""
    image = pe.parse(uki)
    found = ((name, image.section(name)) for name in _MEASURED)
    pairs = ((_digest(name.encode() + b"\0"), _digest(content)) for name, content in found if content is not None)
    return extended(value for pair in pairs for value in pair)


def initdata(digest: str) -> bytes:
    """PCR 8: the first 32 bytes of the initdata digest, a hexadecimal text. Raises `InvalidInput`."""
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        raw = b""
    if len(raw) < len(ZERO):
        raise InvalidInput(f"an initdata digest has at least 64 hexadecimal digits, not {len(digest)}")
    return extended([raw[: len(ZERO)]])


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
