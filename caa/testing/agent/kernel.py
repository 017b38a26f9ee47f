"""What Python's standard library does not offer of Linux: mount, umount, prctl, and reading our own privileges."""

import ctypes
import os
import resource
from pathlib import Path
from types import MappingProxyType

from caa.testing.agent.spec import Allowance

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MNT_DETACH = 2

_FLAGS = MappingProxyType(
    {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "bind": MS_BIND}
)
_PR_SET_CHILD_SUBREAPER = 36

# include/uapi/linux/capability.h, in the order of the bits.
_CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: str, *, options: list[str]) -> None:
    """Mount a file system that has no device. Words of `options` that are flags become flags. Raises `OSError`."""
    flags = 0
    for option in options:
        flags |= _FLAGS.get(option, 0)
    data = ",".join(option for option in options if option not in _FLAGS)
    arguments = (kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)
    _check(_libc.mount(*arguments), target)


def unmount(target: str) -> None:
    """Detach whatever is mounted at `target`; nothing there is fine."""
    _libc.umount2(target.encode(), MNT_DETACH)


def become_subreaper() -> None:
    """A container's first process becomes our child when the runc that made it exits, so that we can wait for it."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def own_allowance() -> Allowance:
    """What we may pass on to a container: capabilities, hard limits, the OOM score."""
    capabilities = _bounding_set()
    if "CAP_SYS_RESOURCE" in capabilities:
        return Allowance(capabilities=capabilities)
    own_score = int(Path("/proc/self/oom_score_adj").read_text())
    return Allowance(capabilities=capabilities, rlimits=_hard_limits(), oom_score_adj=own_score)


def _bounding_set() -> frozenset[str]:
    status = Path("/proc/self/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    return frozenset(f"CAP_{name}" for bit, name in enumerate(_CAPABILITIES.split()) if mask >> bit & 1)


def _hard_limits() -> dict[str, int]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    hard = {name: resource.getrlimit(getattr(resource, name))[1] for name in names}
    return {name: limit for name, limit in hard.items() if limit != resource.RLIM_INFINITY}


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
