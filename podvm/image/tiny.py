"""The tiny image: a kernel and an initramfs that QEMU boots directly, for tests and the demo, with the stand-in agent.

kernel   Debian's cloud kernel, unpacked (`vmlinux`)
initrd   `initrd.cpio`: busybox, CPython with what the guest imports, our code, runc, nft, ip, kernel modules
cmdline  what the kernel has to be told; a test may add its own words
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podvm.image import cpio, elf, interpreter, kernel
from podvm.image.cache import locked
from podvm.image.tree import Tree

CMDLINE = (
    "console=ttyS0 panic=-1 quiet loglevel=1 tsc=reliable no_timer_check mitigations=off nokaslr random.trust_cpu=on "
    "cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1"
)
# Loaded at once, in this order, before anything else; the others when the kernel asks for them.
_AT_BOOT = ("virtio_pci", "virtio_net", "virtio_blk", "isofs", "vxlan", "overlay")
_ON_DEMAND = (
    "virtio_scsi", "sr_mod", "virtio_rng", "virtio_console", "qemu_fw_cfg", "nf_tables", "nf_conntrack", "nft_ct",
    "nft_reject_inet", "veth", "bridge", "dm_crypt", "dm_integrity", "dm_verity", "loop", "xfs", "tpm_tis",
    "wireguard", "nft_masq", "nft_chain_nat",
)  # fmt: skip
_PROGRAMS = (("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2"))
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "media", "newroot", "root", "var/log", "etc", "mnt")
_GUEST = (
    "podvm.__main__",
    "podvm.cli",
    "podvm.forwarder",
    "podvm.attach",
    "caa.testing.agent.daemon",
    "caa.testing.agent.options",
)
_CODE = Path(__file__).parents[2]
_DATA = Path(__file__).with_name("tiny")


@dataclass(frozen=True, slots=True)
class Tiny:
    """The finished image."""

    kernel: Path
    initrd: Path
    cmdline: str = CMDLINE


def build(cache: Path, *, kernel_package: Path | None = None) -> Tiny:
    """Build it in `cache`/tiny; `kernel_package` replaces apt's. Raises `ConfigError`, `Unavailable`."""
    with locked(cache / "kernel"):  # not the whole cache: the demo shall not wait for a big image's ten minutes
        return _build(cache, kernel_package or kernel.fetch(cache / "kernel"))


def _build(cache: Path, package: Path) -> Tiny:
    source = kernel.unpack(package, cache / "kernel")
    vmlinux = source.vmlinux()
    tree = _tree(source)
    initrd = cpio.archive(tree)
    manifest = {"kernel": source.package, "python": interpreter.own().version, "bytes": tree.size(), "cmdline": CMDLINE}
    files = {"vmlinux": vmlinux, "initrd.cpio": initrd, "cmdline": CMDLINE.encode() + b"\n"}
    files["manifest.json"] = json.dumps(manifest, indent=2).encode() + b"\n"
    folder = cache / "tiny"
    _write(folder, files)
    return Tiny(folder / "vmlinux", folder / "initrd.cpio")


def _tree(source: kernel.Kernel) -> Tree:
    tree = Tree()
    for folder in _FOLDERS:
        tree.folder(folder)
    tree.character_device("dev/console", (5, 1))
    tree.character_device("dev/null", (1, 3))
    _add_busybox(tree)
    for program, package in _PROGRAMS:
        elf.add(tree, elf.find(program, package), to=f"usr/sbin/{program}")
    source.add_modules(tree, (*_AT_BOOT, *_ON_DEMAND))
    tree.file("lib/modules/boot", "\n".join(source.in_load_order(_AT_BOOT)).encode() + b"\n")
    _add_python(tree)
    tree.file("init", (_DATA / "init").read_bytes(), mode=0o755)
    tree.file("etc/udhcpc", (_DATA / "udhcpc").read_bytes(), mode=0o755)
    tree.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    tree.file(
        "etc/os-release",
        b'ID=podvm\nNAME="pod VM, tiny test image"\nVARIANT_ID=tiny-test\nVARIANT="stand-in agent, for tests only"\n',
    )
    return tree


def _add_busybox(tree: Tree) -> None:
    busybox = elf.find("busybox", "busybox-static")
    elf.add(tree, busybox, to="bin/busybox")
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in sorted(set(listed) - {"busybox", "ip"}):
        tree.link(f"bin/{applet}", "busybox")
    tree.link("sbin/modprobe", "../bin/busybox")  # the kernel itself calls it there


def _add_python(tree: Tree) -> None:
    python = interpreter.own()
    interpreter.add(tree, python, roots=[_CODE], programs=_GUEST)
    interpreter.add_sources(tree, _CODE / "caa", to=f"{python.library}/caa")
    interpreter.add_sources(tree, _CODE / "podvm", to=f"{python.library}/podvm", but=["image"])


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    for name, data in [*files.items(), ("SHA256SUMS", sums.encode())]:
        new = folder / f".{name}.new"
        new.write_bytes(data)
        new.replace(folder / name)
