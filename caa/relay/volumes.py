"""What the relay puts into CreateContainer for a pod with volumes: which disks they are. Functions of bytes. Pure.

Fields as in Kata's agent.proto and oci.proto: CreateContainerRequest.OCI = 6, Spec.Mounts = 5, Spec.Annotations = 7 (a
map: 1 key, 2 value), Mount {1 destination, 2 source}. The annotation is the reference's: `vol-N`, with N the place of
the disk, to `mount_point` and what the node has told.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as quoted  # json itself imports more than the relay has

from caa.datapath.edits import EditError, all_bytes, bytes_field, change_each, change_message, last_bytes
from caa.datapath.frames import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ANNOTATION = b"io.confidentialcontainers.org.cloud_volumes"
_OCI, _MOUNTS, _ANNOTATIONS = 6, 5, 7


def watch(volumes: Sequence[tuple[str, str]]) -> Watch:
    """The requests that are changed for these volumes: pairs of the path on the worker and a JSON object."""
    return Watch({"CreateContainer": lambda payload: annotated(payload, volumes)})


def annotated(payload: bytes, volumes: Sequence[tuple[str, str]]) -> bytes:
    """The request with the annotation about those volumes that the container mounts.

    One of that name which came with the request goes: only the node knows which disks are the pod's. A request without
    an OCI spec is left as it is, for the agent to refuse. Raises `EditError`.
    """
    if not all_bytes(payload, _OCI):
        return payload
    return change_message(payload, _OCI, change=lambda spec: _with_entry(spec, volumes))


def _with_entry(spec: bytes, volumes: Sequence[tuple[str, str]]) -> bytes:
    members = list(_members(all_bytes(spec, _MOUNTS), volumes))
    spec = change_each(spec, _ANNOTATIONS, change=lambda entry: None if last_bytes(entry, 1) == ANNOTATION else entry)
    if not members:
        return spec
    value = ("{" + ",".join(members) + "}").encode()
    return spec + bytes_field(_ANNOTATIONS, bytes_field(1, ANNOTATION) + bytes_field(2, value))


def _members(mounts: Sequence[bytes], volumes: Sequence[tuple[str, str]]) -> list[str]:
    found = []
    for number, (path, fields) in enumerate(volumes):
        source = path.encode()
        places = [mount for mount in mounts if _comes_from(last_bytes(mount, 2), source)]
        if places:
            # The guest looks for the mount point among destinations, for which all of the volume is meant, and among
            # sources, where it stands for several mounts, and for what is below it.
            plain = len(places) == 1 and last_bytes(places[0], 2) == source
            point = last_bytes(places[0], 1) if plain else source
            found.append(f'"vol-{number}":{{"mount_point":{quoted(_text(point))},{fields[1:]}')
    return found


def _comes_from(source: bytes, volume: bytes) -> bool:
    """The volume itself, or something below it (a subPath)."""
    return source == volume or source.startswith(volume + b"/")


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise EditError("a mount's path is not UTF-8") from None
