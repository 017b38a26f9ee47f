"""What the forwarder changes in the agent's requests: functions of bytes. Pure.

Fields as in Kata's agent.proto and oci.proto: CreateContainerRequest.OCI = 6, Spec.Mounts = 5, Spec.Annotations = 7,
Spec.Linux = 8, Linux.Namespaces = 6, LinuxNamespace {1 Type, 2 Path}, Mount {1 destination, 2 source, 3 type,
4 options}, CreateSandboxRequest.dns = 2.
Everything else is kept byte for byte, unknown fields too.
"""

from __future__ import annotations

from caa.datapath.edits import all_bytes, bytes_field, change_each, change_message, drop, last_bytes, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

POD_NAMESPACE = "/run/netns/podns"
CLOUD_VOLUMES = "io.confidentialcontainers.org.cloud_volumes"
_OCI, _MOUNTS, _ANNOTATIONS, _LINUX, _NAMESPACES, _DNS = 6, 5, 7, 8, 6, 2
_NETWORK = (b"network", b"net")  # the Go shim's and runtime-rs' names
_BIND_OPTIONS = (b"bind", b"rbind")
_PATH_LIMIT = 4096


def create_container(payload: bytes, pod_namespace: str = POD_NAMESPACE) -> tuple[bytes, list[str]]:
    """Put the container into the pod's network namespace.

    Returns the request to pass on and the sources of its bind mounts, which must exist. A request without an OCI spec
    is left as it is, for the agent to refuse. Raises `EditError`.
    """
    if not _has(payload, _OCI):
        return payload, []
    spec = b"".join(all_bytes(payload, _OCI))
    entry = bytes_field(1, b"network") + bytes_field(2, pod_namespace.encode())
    changed = change_message(
        payload, _OCI, change=lambda oci: change_message(oci, _LINUX, change=lambda it: _join(it, entry))
    )
    return changed, bind_sources(spec)


def create_sandbox(payload: bytes) -> bytes:
    """Leave out `dns`: the guest's root file system is read-only, and the agent would write resolv.conf there."""
    return drop(payload, _DNS) if _has(payload, _DNS) else payload


def bind_sources(spec: bytes) -> list[str]:
    """Absolute sources of bind mounts, each once, in order; others are the agent's to judge. Raises `EditError`."""
    found: dict[str, None] = {}
    for mount in all_bytes(spec, _MOUNTS):
        source = last_bytes(mount, 2)
        if _is_bind(mount) and source.startswith(b"/") and len(source) < _PATH_LIMIT and b"\0" not in source:
            found[source.decode("utf-8", "surrogateescape")] = None
    return list(found)


def cloud_volumes(payload: bytes) -> bytes:
    """The annotation that says which disks hold the container's volumes, b"" for none. Raises `EditError`."""
    found = b""
    for entry in all_bytes(b"".join(all_bytes(payload, _OCI)), _ANNOTATIONS):
        if last_bytes(entry, 1) == CLOUD_VOLUMES.encode():
            found = last_bytes(entry, 2)
    return found


def move_binds(payload: bytes, moved: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Let the mounts of volumes come from where their disks are mounted.

    `moved` are pairs of a mount point and the new source. A mount is meant whose destination is the mount point, or
    whose source is it or is below it (a subPath). Raises `EditError`.
    """

    def change(mount: bytes) -> bytes:
        destination, source = last_bytes(mount, 1), last_bytes(mount, 2)
        for point, place in moved:
            below = source[len(point) :] if source == point or source.startswith(point + b"/") else b""
            if (point in (destination, source) or below) and b".." not in below.split(b"/"):
                return replace(mount, 2, field=bytes_field(2, place + below))
        return mount

    return change_message(payload, _OCI, change=lambda spec: change_each(spec, _MOUNTS, change=change))


def _is_bind(mount: bytes) -> bool:
    return last_bytes(mount, 3) == b"bind" or any(option in _BIND_OPTIONS for option in all_bytes(mount, 4))


def _has(message: bytes, number: int) -> bool:
    return bool(all_bytes(message, number))


def _join(linux: bytes, entry: bytes) -> bytes:
    """The `Linux` message with exactly one network namespace: the first such entry is replaced, or one is added."""
    done = False

    def change(namespace: bytes) -> bytes | None:
        nonlocal done
        if last_bytes(namespace, 1) not in _NETWORK:
            return namespace
        if done:
            return None
        done = True
        return entry

    changed = change_each(linux, _NAMESPACES, change=change)
    return changed if done else changed + bytes_field(_NAMESPACES, entry)
