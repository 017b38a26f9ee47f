"""What the guest is told of a volume's disk: members of the annotation `cloud_volumes`, as the reference writes them.

The relay adds `mount_point`, which it sees in the container's request. Read by `podvm.attach`. Pure.
"""

import json
from collections.abc import Sequence

from caa.model.volume import Volume


def fields(volumes: Sequence[Volume]) -> list[str]:
    """A JSON object for each volume, all of whose members are texts; `lun` is its place among the pod's volumes."""
    return [json.dumps(_members(one, number), separators=(",", ":")) for number, one in enumerate(volumes)]


def _members(volume: Volume, number: int) -> dict[str, str]:
    members = {"fs_type": volume.fs_type, "lun": str(number), "disk_id": volume.disk}
    if volume.fs_group is not None:
        members["fs_group"] = str(volume.fs_group)
    if volume.key:
        members |= {"encrypt_type": "luks2", "key_id": volume.key}
    return members
