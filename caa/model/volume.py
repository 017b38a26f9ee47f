"""Disks that a pod's containers mount: what is known of each, and what of that can never be right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from caa.errors import InvalidInput

FILE_SYSTEMS = ("ext4", "ext3", "xfs")
MOST = 32  # a node's pods mount disks through one VM each; EC2 has room for 28 devices, libvirt gives 22
_KEYS = ("kbs://", "sealed.")  # a key that the host knows would protect from nobody
_LONGEST_PATH = 1024  # the kubelet's longest has about 350 characters
_LONGEST_TEXT = 512
_TEXT = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One disk. `source` is where the kubelet has the volume on the worker: the mounts that come from there are meant.

    `disk` is the cloud's id of it. `fs_group` is the pod's fsGroup. `key` is the URI of the key of an encrypted disk
    (LUKS2), `kbs://...` or a sealed secret, "" for a plain one.
    """

    source: str
    disk: str
    fs_type: str = "ext4"
    fs_group: int | None = None
    key: str = ""


def checked(volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """The volumes as they are, in their order, which is the order of their attachment.

    They come from files that others write. Raises `InvalidInput`, naming the volume and the field.
    """
    if len(volumes) > MOST:
        raise InvalidInput(f"the pod has {len(volumes)} volumes, allowed are {MOST}")
    for one in volumes:
        _check(one)
    for what in ("source", "disk"):
        values = [getattr(one, what) for one in volumes]
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise InvalidInput(f"two volumes of the pod have the same {what}, {twice[:80]!r}")
    return tuple(volumes)


def _check(volume: Volume) -> None:
    if not _is_path(volume.source):
        raise InvalidInput(f"the pod's volume at {volume.source[:80]!r}: that is no absolute path")
    place = f"the pod's volume at {volume.source[:120]}"
    if not _is_text(volume.disk):
        raise InvalidInput(f"{place}: {volume.disk[:80]!r} is no id of a disk")
    if volume.fs_type not in FILE_SYSTEMS:
        raise InvalidInput(f"{place}: fs_type {volume.fs_type[:32]!r} is not one of {', '.join(FILE_SYSTEMS)}")
    if volume.fs_group is not None and not 0 <= volume.fs_group < 2**32 - 1:
        raise InvalidInput(f"{place}: fs_group {volume.fs_group} is not from 0 to {2**32 - 2}")
    if volume.key and not (_is_text(volume.key) and volume.key.startswith(_KEYS)):
        raise InvalidInput(f"{place}: the key has to be the URI of one, kbs:///... or sealed....")


def _is_path(text: str) -> bool:
    parts = text.split("/")
    return (
        len(text) <= _LONGEST_PATH
        and text.isprintable()
        and parts[0] == ""
        and len(parts) > 1
        and not {"", ".", ".."} & set(parts[1:])
    )


def _is_text(text: str) -> bool:
    return len(text) <= _LONGEST_TEXT and _TEXT.fullmatch(text) is not None
