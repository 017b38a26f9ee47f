"""A private libvirtd for tests and the demo: own folders, socket and mounts, in the network namespace of who starts it.

    with Libvirtd(Path("/tmp/lv")) as daemon:
        daemon.uri          # for libvirt.open
        daemon.restart()    # as an upgrade of the package would: its VMs live on
        ...

Nothing of the host's libvirt, /run, /var/lib or /etc is touched, and the end of the block, or the death of the process
that holds it, ends the daemon with every QEMU, dnsmasq and swtpm that it started. Needs root. Its network namespace is
its own too, unless the caller has one for it (the demo has): libvirt makes bridges and writes firewall rules.

The way it works was proven in `reference/testbed.md` 1: a mount namespace binds our folders over libvirt's fixed paths;
a subreaper collects its children at once, without which each `virDomainDestroy` takes a second longer.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_PR_SET_CHILD_SUBREAPER = 36
_SECONDS = 30.0
_BOUND: Mapping[str, str] = MappingProxyType(
    {"run": "/run", "lib": "/var/lib", "etc": "/etc/libvirt", "log": "/var/log", "cache": "/var/cache"}
)
_DAEMON_CONF = """unix_sock_dir = "{base}/sock"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:{base}/log/libvirtd.log"
"""
_QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
swtpm_user = "root"
swtpm_group = "root"
"""
NETWORK = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>{name}</name>
  <bridge name='{bridge}' stp='off' delay='0'/>
  <ip address='{gateway}' netmask='255.255.255.0'>
    <dhcp><range start='{first}' end='{last}'/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value='no-ping'/><dnsmasq:option value='dhcp-authoritative'/></dnsmasq:options>
</network>"""


class Libvirtd:
    """The daemon and its folders below `base`, whose path has to be short (a socket is in it), and not below one of the
    folders that it hides from the daemon: /run, /var/lib, /var/log, /var/cache.

    `cache` may be a folder that outlives it: with it a start takes 0.2 s instead of 2. `callers_network` leaves it in
    the caller's network namespace.
    """

    def __init__(self, base: Path, *, cache: Path | None = None, callers_network: bool = False) -> None:
        if hidden := [one for one in _BOUND.values() if base.is_relative_to(one)]:
            raise ValueError(f"{base} is below {hidden[0]}, of which the daemon has one of its own: use /tmp")
        self.base = base
        self.pool = base / "pool"
        self._cache = cache or base / "cache"
        self._callers_network = callers_network
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """For `libvirt.open` and LIBVIRT_URI."""
        return f"qemu:///system?socket={self.base}/sock/libvirt-sock"

    @property
    def netns(self) -> str:
        """The network namespace of its guests, as a path."""
        assert self._keeper is not None
        return f"/proc/{self._keeper.pid}/ns/net"

    def __enter__(self) -> "Libvirtd":
        for folder in ("sock", "run", "lib", "etc", "log", "pool"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        self._cache.mkdir(parents=True, exist_ok=True)
        (self.base / "etc" / "libvirtd.conf").write_text(_DAEMON_CONF.format(base=self.base))
        (self.base / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        command = [sys.executable, "-m", "caa.testing.libvirtd", str(self.base), str(self._cache)]
        command += ["callers-network"] if self._callers_network else []
        with (self.base / "log" / "output").open("wb") as output:
            self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
        try:
            self._await_answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.stdin is not None:
            keeper.stdin.close()
            keeper.wait(_SECONDS)

    def stop(self) -> None:
        """Kill the daemon alone; its VMs run on."""
        self._say(b"stop\n")
        self._until(lambda: not self._answers(), "libvirtd to be gone")

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        self._say(b"start\n")
        self._await_answer()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.stop()
        self.start()

    def define_pool_and_network(self, *, pool: str = "default", network: str = "default", third: int = 150) -> None:
        """Make and start a pool in `self.pool` and a network 192.168.<third>.0/24 with DHCP."""
        import libvirt  # noqa: PLC0415  # optional: the extra `libvirt`

        connection = libvirt.open(self.uri)
        try:
            connection.storagePoolCreateXML(
                f"<pool type='dir'><name>{pool}</name><target><path>{self.pool}</path></target></pool>", 0
            )
            net = f"192.168.{third}"
            words = {"gateway": f"{net}.1", "first": f"{net}.100", "last": f"{net}.250", "bridge": f"caalv{third}"}
            connection.networkCreateXML(NETWORK.format(name=network, **words))
        finally:
            connection.close()

    def inside(self, *command: str) -> None:
        """Run a command in its mount and network namespaces."""
        assert self._keeper is not None
        subprocess.run(["nsenter", f"--target={self._keeper.pid}", "--mount", "--net", *command], check=True)

    def processes(self) -> Sequence[str]:
        """The command lines of what the daemon started and what still runs: QEMU, dnsmasq, swtpm."""
        assert self._keeper is not None
        found = []
        for pid in _below(self._keeper.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                found.append(" ".join(words).strip())
        return [one for one in found if one and "libvirtd" not in one.split()[0]]

    def _say(self, line: bytes) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(line)
        self._keeper.stdin.flush()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(f"{self.base}/sock/libvirt-sock")
            return True
        return False

    def _await_answer(self) -> None:
        self._until(self._answers, "libvirtd to answer")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _SECONDS
        while not condition():
            if self._keeper is not None and self._keeper.poll() is not None:
                break
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        else:
            return
        log = (self.base / "log" / "output").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"waited in vain for {what}: {log}")


def _keep(base: Path, cache: Path, *, own_network: bool) -> None:
    """The keeper's process: libvirtd's parent, and of all that it leaves behind; ends with its standard input."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _unshare(_CLONE_NEWNS | (_CLONE_NEWNET if own_network else 0))
    if own_network:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _bind(base, cache)
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _serve(_Daemon(), wake)
    finally:
        _end_all()


class _Daemon:
    """The libvirtd process: at most one."""

    def __init__(self) -> None:
        self._pid = 0

    def start(self) -> None:
        if not self._pid:
            path = "/usr/sbin:/usr/bin:/sbin:/bin"
            environ = {"PATH": path, "HOME": "/root", "LANG": "C"}
            self._pid = os.posix_spawn(
                "/usr/sbin/libvirtd", ["libvirtd", "--config", "/etc/libvirt/libvirtd.conf"], environ
            )

    def stop(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def gone(self, pid: int) -> None:
        """Told of every process that ended."""
        if pid == self._pid:
            self._pid = 0


def _serve(daemon: _Daemon, wake: socket.socket) -> None:
    daemon.start()
    while True:
        ready, _, _ = select.select([0, wake.fileno()], [], [], 1.0)
        if wake.fileno() in ready:
            with suppress(BlockingIOError):
                wake.recv(4096)
        for pid in _reaped():
            daemon.gone(pid)
        if 0 in ready:
            words = os.read(0, 4096).split()
            if not words:
                return
            for word in words:
                {b"start": daemon.start, b"stop": daemon.stop}[word]()


def _reaped() -> Sequence[int]:
    pids = []
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            pids.append(pid)
    return pids


def _unshare(namespaces: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(namespaces) != 0:
        raise OSError(ctypes.get_errno(), "namespaces of its own need root")


def _bind(base: Path, cache: Path) -> None:
    """Our folders in place of libvirt's, in this mount namespace."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for parent in (base / "run", base / "lib", base / "log", cache):
        (parent / "libvirt").mkdir(exist_ok=True)
    for name, target in _BOUND.items():
        source = cache if name == "cache" else base / name
        subprocess.run(["mount", "--bind", str(source), target], check=True)
    for database, line in (
        ("passwd", "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin"),
        ("group", "libvirt-qemu:x:64055:"),
    ):
        _add_account(base / database, Path("/etc", database), line=line)


def _add_account(copy: Path, database: Path, *, line: str) -> None:
    """libvirtd looks the account up that it was built for, also when its configuration names another; the package that
    makes the account also starts a libvirtd on the host, which nobody asked for."""
    text = database.read_text()
    if f"\n{line.partition(':')[0]}:" not in text:
        copy.write_text(f"{text.rstrip()}\n{line}\n")
        subprocess.run(["mount", "--bind", str(copy), str(database)], check=True)


def _below(pid: int) -> list[int]:
    """Every living descendant."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = [int(one) for one in (task / "children").read_text().split()]
                found += children
                waiting += children
    return found


def _end_all() -> None:
    for sign, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        while (pids := _below(os.getpid())) and time.monotonic() < end:
            for pid in pids:
                with suppress(OSError):
                    os.kill(pid, sign)
            time.sleep(0.02)
            _reaped()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]), own_network="callers-network" not in sys.argv[3:])
