"""The container specification: Kata's protobuf `Spec` to the `config.json` that runc reads. Pure.

Protobuf's zero is OCI's "absent", so zero numbers and empty texts and lists are left out.
Hooks are dropped (the shims clear them) and so are the SELinux and AppArmor labels, which name profiles of the worker.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from caa.testing.agent import resources
from caa.wire.proto import agent

OCI_VERSION = "1.0.2"

# Kata names namespaces as containerd does (`mount`) or as the kernel does (`mnt`), depending on the shim.
NAMESPACES = MappingProxyType({"mnt": "mount", "net": "network"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What this process may give on: runc fails where it asks for more than its caller has.

    `capabilities` is the bounding set (None: everything), `rlimits` maps a `RLIMIT_` name to our own hard limit,
    `oom_score_adj` is our own value: without CAP_SYS_RESOURCE it can only be raised.
    """

    capabilities: frozenset[str] | None = None
    rlimits: Mapping[str, int] | None = None
    oom_score_adj: int = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a container goes on this machine: its root file system, cgroup and the namespaces it joins.

    `namespaces` maps an OCI type (`network`, `pid`, ...) to the path to join, empty for a new one. The request's own
    path for a type wins.
    """

    rootfs: str
    cgroup: str
    namespaces: Mapping[str, str]


def config(spec: agent.Spec, *, placement: Placement, allowance: Allowance) -> dict[str, Any]:
    """The whole `config.json`."""
    return {
        "ociVersion": OCI_VERSION,
        "process": process(spec.Process, allowance=allowance),
        "root": {"path": placement.rootfs, "readonly": spec.Root.Readonly},
        "mounts": [_mount(mount) for mount in spec.Mounts],
        "annotations": dict(spec.Annotations),
        "linux": _linux(spec.Linux, placement),
        **_given(hostname=spec.Hostname),
    }


def process(proc: agent.Process, *, allowance: Allowance) -> dict[str, Any]:
    """The `process` object, for `config.json` and for `runc exec --process` alike."""
    return {
        "terminal": proc.Terminal,
        "user": _user(proc.User),
        "args": list(proc.Args),
        "env": list(proc.Env),
        "cwd": proc.Cwd or "/",
        "noNewPrivileges": proc.NoNewPrivileges,
        **_given(
            consoleSize=_console_size(proc),
            capabilities=_capabilities(proc.Capabilities, allowance.capabilities),
            rlimits=[_rlimit(limit, allowance.rlimits or {}) for limit in proc.Rlimits],
            oomScoreAdj=_oom_score_adj(proc.OOMScoreAdj, allowance.oom_score_adj),
        ),
    }


def capability(name: str) -> str:
    """The OCI name: the Go shim says `CAP_CHOWN`, runtime-rs says `CHOWN`."""
    return name if name.startswith("CAP_") else f"CAP_{name}"


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _user(user: agent.User) -> dict[str, Any]:
    gids = _given(additionalGids=list(user.AdditionalGids))
    return {"uid": user.UID, "gid": user.GID, **gids}


def _console_size(proc: agent.Process) -> dict[str, int]:
    if not proc.Terminal or not proc.HasField("ConsoleSize"):
        return {}
    return {"height": proc.ConsoleSize.Height, "width": proc.ConsoleSize.Width}


def _capabilities(caps: agent.LinuxCapabilities, allowed: frozenset[str] | None) -> dict[str, list[str]]:
    sets = {
        "bounding": caps.Bounding,
        "effective": caps.Effective,
        "inheritable": caps.Inheritable,
        "permitted": caps.Permitted,
        "ambient": caps.Ambient,
    }
    return {name: _permitted(values, allowed) for name, values in sets.items() if values}


def _permitted(names: Iterable[str], allowed: frozenset[str] | None) -> list[str]:
    full = (capability(name) for name in names)
    return [name for name in full if allowed is None or name in allowed]


def _rlimit(limit: agent.POSIXRlimit, own: Mapping[str, int]) -> dict[str, Any]:
    hard = min(limit.Hard, own.get(limit.Type, limit.Hard))
    return {"type": limit.Type, "hard": hard, "soft": min(limit.Soft, hard)}


def _oom_score_adj(wanted: int, own: int) -> int:
    return max(wanted, own)


def _mount(mount: agent.Mount) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _linux(linux: agent.Linux, placement: Placement) -> dict[str, Any]:
    return {
        "cgroupsPath": placement.cgroup,
        "namespaces": _namespaces(linux.Namespaces, placement.namespaces),
        "resources": resources.convert(linux.Resources),
        **_given(
            uidMappings=[_mapping(mapping) for mapping in linux.UIDMappings],
            gidMappings=[_mapping(mapping) for mapping in linux.GIDMappings],
            sysctl=dict(linux.Sysctl),
            devices=[_device(device) for device in linux.Devices],
            seccomp=_seccomp(linux.Seccomp),
            rootfsPropagation=linux.RootfsPropagation,
            maskedPaths=list(linux.MaskedPaths),
            readonlyPaths=list(linux.ReadonlyPaths),
        ),
    }


def _namespaces(asked: Iterable[agent.LinuxNamespace], ours: Mapping[str, str]) -> list[dict[str, str]]:
    paths = dict(ours)
    for namespace in asked:
        kind = NAMESPACES.get(namespace.Type, namespace.Type)
        paths[kind] = namespace.Path or paths.get(kind, "")
    return [{"type": kind, **_given(path=path)} for kind, path in paths.items()]


def _mapping(mapping: agent.LinuxIDMapping) -> dict[str, int]:
    return {"containerID": mapping.ContainerID, "hostID": mapping.HostID, "size": mapping.Size}


def _device(device: agent.LinuxDevice) -> dict[str, Any]:
    return {
        "path": device.Path,
        "type": device.Type,
        "major": device.Major,
        "minor": device.Minor,
        "fileMode": device.FileMode,
        "uid": device.UID,
        "gid": device.GID,
    }


def _seccomp(seccomp: agent.LinuxSeccomp) -> dict[str, Any]:
    if not seccomp.DefaultAction:
        return {}
    return {
        "defaultAction": seccomp.DefaultAction,
        "syscalls": [_syscall(call) for call in seccomp.Syscalls],
        **_given(architectures=list(seccomp.Architectures), flags=list(seccomp.Flags)),
    }


def _syscall(call: agent.LinuxSyscall) -> dict[str, Any]:
    errno = {"errnoRet": call.errnoret} if call.HasField("errnoret") else {}
    arguments = [{"index": arg.Index, "value": arg.Value, "valueTwo": arg.ValueTwo, "op": arg.Op} for arg in call.Args]
    return {"names": list(call.Names), "action": call.Action, **errno, **_given(args=arguments)}
