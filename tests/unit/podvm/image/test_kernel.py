"""Kernel packages: load order, dependency tables, unpacking; on files made here."""

import gzip
import struct
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image.kernel import Kernel
from podvm.image.tree import Tree

RELEASE = "6.1.0-test"


def module(**info: str) -> bytes:
    """Something with a `.modinfo`, in which every string follows the one before at once."""
    return b"\x7fELF" + b"\0" + b"".join(f"{key[:-1]}={value}\0".encode() for key, value in info.items())


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    folder = tmp_path / "lib" / "modules" / RELEASE
    (folder / "net").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
    (folder / "net" / "vxlan.ko").write_bytes(
        module(alias1="rtnl-link-vxlan", alias2="two", depends1="udp-tunnel,ext4")
    )
    (folder / "net" / "udp_tunnel.ko").write_bytes(module(depends1=""))
    (folder / "net" / "odd.ko").write_bytes(module(depends1="none"))
    (tmp_path / "boot").mkdir()
    return Kernel(tmp_path, RELEASE, "linux-image")


def test_what_is_needed_comes_first(kernel: Kernel) -> None:
    assert kernel.in_load_order(["vxlan", "ext4", "udp-tunnel"]) == ["udp_tunnel", "vxlan"]


def test_a_missing_module_is_named(kernel: Kernel) -> None:
    with pytest.raises(ConfigError, match=r"6\.1\.0-test has no module none"):
        kernel.in_load_order(["odd"])


def test_the_tables_for_modprobe(kernel: Kernel) -> None:
    tree = Tree()
    assert kernel.add_modules(tree, ["vxlan"]) == ["udp_tunnel", "vxlan"]
    files = dict(tree.entries())
    folder = f"lib/modules/{RELEASE}"
    assert files[f"{folder}/modules.dep"].data == b"udp_tunnel.ko: \nvxlan.ko: udp_tunnel.ko\n"
    assert files[f"{folder}/modules.alias"].data == b"alias rtnl_link_vxlan vxlan\nalias two vxlan\n"


def test_the_boot_file_is_unpacked(kernel: Kernel) -> None:
    payload = gzip.compress(b"\x7fELF and more")
    image = bytearray(512 * 2 + 64)
    image[0x1F1] = 1
    image[0x248:0x250] = struct.pack("<II", 64, len(payload))
    (kernel.root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bytes(image) + payload)
    assert kernel.vmlinux() == b"\x7fELF and more"


def test_an_unknown_packing_is_refused(kernel: Kernel) -> None:
    (kernel.root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bytes(2048))
    with pytest.raises(ConfigError, match="packed in an unknown way"):
        kernel.vmlinux()
