"""Whether and how the initdata digest is measured: the image says if it has a TPM, `podvm.tpm` extends it."""

import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from caa.errors import CaaError, StateError
from podvm import tpm
from podvm.clock import Clock

_log = logging.getLogger(__name__)

_DEVICE_SECONDS = 20.0  # for the kernel to find the TPM's device
_PAUSE = 0.1


class Presence(StrEnum):
    """What the image says about its TPM."""

    REQUIRED = "required"  # it has one: no device, or a failure, stops the boot
    AUTO = "auto"  # use it where there is one; a failure stops the boot all the same
    OFF = "off"  # never touch it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm:
    """The TPM to measure into."""

    presence: Presence = Presence.OFF
    device: Path = tpm.DEVICE


def extend(digest: str, rules: Tpm, *, clock: Clock) -> None:
    """Extend PCR 8 by the digest, a hex text of at least 32 bytes. Twice is once. Raises `StateError`."""
    if rules.presence is Presence.OFF:
        return
    if not _appears(rules, clock):
        if rules.presence is Presence.REQUIRED:
            raise StateError(
                f"there is no TPM at {rules.device} after {_DEVICE_SECONDS:g} s, and this image must have one: "
                "give the VM a vTPM, or take an image whose process-user-data runs with -tpm auto"
            )
        _log.warning("no TPM at %s: the initdata digest is measured nowhere", rules.device)
        return
    try:
        with tpm.opened(rules.device) as ask:
            found = tpm.measure(ask, digest)
    except CaaError as error:
        raise StateError(f"the initdata digest cannot be measured: {error}") from error
    _log.info("PCR %d is %s", tpm.PCR, found.hex())


def _appears(rules: Tpm, clock: Clock) -> bool:
    """Whether the device is there; one that must be is waited for."""
    end = clock.now() + (_DEVICE_SECONDS if rules.presence is Presence.REQUIRED else 0.0)
    while not rules.device.exists():
        if clock.now() >= end:
            return False
        clock.sleep(_PAUSE)
    return True
