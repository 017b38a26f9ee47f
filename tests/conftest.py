"""What every suite shares: a test says which tool or right it needs; lacking it skips here and fails in CI."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from podvm.image import cpio, elf, kernel, tiny
from podvm.image.tree import Tree

ROOT = Path(__file__).resolve().parent.parent

# `.ci/setup --go-on` leaves libvirt-python out where it cannot be built; in CI that is an error.
if find_spec("libvirt") is None and os.environ.get("CI") != "true":
    collect_ignore_glob = ["*libvirt*"]


def _package_of(tool: str) -> str:
    for line in (ROOT / ".ci" / "packages.txt").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == tool:
            return f" (Debian package {words[1]})"
    return ""


def _present(tool: str) -> bool:
    if tool.startswith("/"):
        return Path(tool).exists()
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _lack(item: pytest.Item) -> str | None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if not _present(tool):
                return f"needs {tool}{_package_of(tool)}, which is not installed"
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root (namespaces, mounts): run the suite as root"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    lack = _lack(item)
    if lack:
        pytest.skip(lack)


class SkipsFail:
    """In CI a skipped test or module fails the run: nobody reads a skip there."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.skipped:
            terminalreporter.write_line(f"FAILED in CI because it was skipped: {nodeid}")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(SkipsFail())


_SMALL_INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys
for module in $(cat /lib/modules/boot); do insmod "/lib/modules/$(uname -r)/$module.ko"; done
mount -t devtmpfs devtmpfs /dev
for disk in /sys/block/vd*; do echo "small guest: disk $(cat $disk/serial)"; done
case " $(cat /proc/cmdline) " in *" small.silent "*) echo "small guest: silent"; exec sleep 9999;; esac
case " $(cat /proc/cmdline) " in *" small.fill "*) echo "small guest: writes"; dd if=/dev/zero of=/dev/vda bs=64k;; esac
ip link set lo up; ip link set eth0 up
mount -t iso9660 -o ro "$(findfs LABEL=cidata)" /mnt && echo "small guest: data $(md5sum < /mnt/user-data)"
exec udhcpc -f -i eth0 -s /etc/udhcpc -t 100 -T 1
"""
_SMALL_LEASE = b"""#!/bin/busybox sh
case $1 in bound | renew)
  ip addr replace "$ip/$mask" dev "$interface"
  echo "small guest: $ip"
esac
"""
_SMALL_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "isofs")


@pytest.fixture(scope="session")
def small_guest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a guest that boots in two seconds under emulation, asks for an address and does nothing else."""
    cache = ROOT / ".cache" / "image" / "kernel"
    source = kernel.unpack(kernel.fetch(cache), cache)
    tree = Tree()
    for folder in ("dev", "proc", "sys", "bin", "etc", "mnt"):
        tree.folder(folder)
    tree.character_device("dev/console", (5, 1))
    elf.add(tree, elf.find("busybox", "busybox-static"), to="bin/busybox")
    tree.file("lib/modules/boot", "\n".join(source.add_modules(tree, _SMALL_MODULES)).encode() + b"\n")
    tree.file("init", _SMALL_INIT, mode=0o755)
    tree.file("etc/udhcpc", _SMALL_LEASE, mode=0o755)
    folder = tmp_path_factory.mktemp("guest")
    (folder / "initrd").write_bytes(cpio.archive(tree))
    (folder / "vmlinux").write_bytes(source.vmlinux())
    return {
        "LIBVIRT_KERNEL": str(folder / "vmlinux"),
        "LIBVIRT_INITRD": str(folder / "initrd"),
        "LIBVIRT_CMDLINE": tiny.CMDLINE,
        "LIBVIRT_MEMORY": "256",
        "LIBVIRT_CPU": "1",
    }
