"""The "hardware" of a local pod VM: a script that makes namespaces and mounts, then becomes the guest's first process.

Run as `python -I -S machine.py <report fd> <drive fd> <name> <user data size> <cgroup mount>... -- <command>...`, never
imported by the driver. It imports as little as it can: an interpreter with `ctypes` is up in 10 ms, and
`os.unshare` exists only from Python 3.12 on. The script forks twice away from the driver, so the pod VM outlives it:

    driver -> this script (own session, new namespaces) -> PID 1 of the pod VM -> exec of the guest's command

On the report descriptor it writes `pid <number>`, and later `error <what>` or nothing: a closed descriptor without
an error means that the guest's command runs. On the drive descriptor it waits for the user data before the guest
starts, so the network interface is there from the first instruction on; the user data holds the pod VM's private key
and therefore never touches a disk: the config drive is a tmpfs. User data of size 0 means no config drive.

A cgroup mount is written `<mount point>|<type>|<options>|<our cgroup in it>`.
"""

# pathlib would double the start time of this script:
# ruff: noqa: PTH102, PTH110, PTH119, PTH211

import _socket
import ctypes
import os
import sys

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
_CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_REC, _MS_PRIVATE = 32, 16384, 1 << 18
_SAFE = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_CGROUP_ROOT = "/sys/fs/cgroup"

_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Make the machine and start the guest; the process that was called exits as soon as PID 1 exists."""
    report, drive, name, size = int(argv[0]), int(argv[1]), argv[2], int(argv[3])
    split = argv.index("--")
    cgroups = [one.split("|") for one in argv[4:split]]
    try:
        for _, _, _, ours in cgroups:
            _write(f"{ours}/cgroup.procs", b"0")
        _check(_libc.unshare(_NAMESPACES), "new namespaces")
        child = os.fork()
        if child:
            os.write(report, b"pid %d\n" % child)
            os._exit(0)
        _furnish(name, cgroups)
        _fill_config_drive(drive, name, size=size)
        _start(report, argv[split + 1 :])
    except BaseException as error:  # the far end of the pipe is the only one who can tell anybody
        os.write(report, f"error {error}\n".encode())
    os._exit(1)


def _start(report: int, command: list[str]) -> None:
    os.set_inheritable(report, False)  # closed by a successful exec: the driver's sign that the guest runs
    os.chdir("/")
    os.umask(0o022)
    os.execv(command[0], command)  # noqa: S606  # a list of arguments, no shell


def _furnish(name: str, cgroups: list[list[str]]) -> None:
    """The guest's own view: nothing that is mounted here is seen outside, nothing mounted outside later is seen here.

    `/run` is empty as on a machine that just booted. Everything else is the host's: a local pod VM isolates nothing.
    """
    _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", kind="proc", flags=_SAFE)
    _mount("sysfs", "/sys", kind="sysfs", flags=_SAFE)
    _mount_cgroups(cgroups)
    _mount("tmpfs", "/run", kind="tmpfs", flags=_MS_NOSUID | _MS_NODEV, data="mode=755")
    _socket.sethostname(name)


def _fill_config_drive(drive: int, name: str, *, size: int) -> None:
    """Put the NoCloud files into `/media/cidata`. A short read means that the driver gave up; it cleans up."""
    document = b""
    while part := os.read(drive, 1 << 16):
        document += part
    os.close(drive)
    if len(document) != size:
        os._exit(1)
    if not document:
        return
    _mount("tmpfs", "/media", kind="tmpfs", flags=_SAFE, data="mode=755")
    os.mkdir("/media/cidata", 0o700)
    _write("/media/cidata/user-data", document)
    _write("/media/cidata/meta-data", f"instance-id: {name}\nlocal-hostname: {name}\n".encode())
    _mount("tmpfs", "/media", flags=_MS_REMOUNT | _MS_RDONLY | _SAFE)


def _mount_cgroups(cgroups: list[list[str]]) -> None:
    """Mount every hierarchy anew: from inside the new cgroup namespace its root is the pod VM's own cgroup.

    `runc` reads `/proc/self/cgroup` and mountinfo together, which disagree in mounts made outside.
    """
    if [point for point, _, _, _ in cgroups] == [_CGROUP_ROOT]:  # cgroup v2 alone
        _mount("cgroup2", _CGROUP_ROOT, kind="cgroup2", flags=_SAFE)
        # A cgroup with processes may not hand controllers down (cgroup-v2 "no internal processes"), so PID 1 moves.
        os.mkdir(f"{_CGROUP_ROOT}/init")
        _write(f"{_CGROUP_ROOT}/init/cgroup.procs", b"0")
        return
    _mount("tmpfs", _CGROUP_ROOT, kind="tmpfs", flags=_SAFE, data="mode=755")
    for point, kind, options, _ in cgroups:
        os.mkdir(point)
        _mount(kind, point, kind=kind, flags=_SAFE, data=options)
        for alias in os.path.basename(point).split(","):  # "cpu,cpuacct" is reached as "cpu" too
            if not os.path.exists(f"{_CGROUP_ROOT}/{alias}"):
                os.symlink(point, f"{_CGROUP_ROOT}/{alias}")


def _mount(source: str, target: str, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {kind or source} on {target}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
