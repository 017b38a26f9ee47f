"""Scratch space with real dm-crypt and dm-integrity: the tiny image's kernel under QEMU, a blank disk, our command."""

import subprocess
from pathlib import Path

import pytest

from podvm.image import cpio, elf, kernel, tiny
from podvm.image.tree import Tree

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.needs(tool)
        for tool in ("qemu-system-x86_64", "cryptsetup", "mkfs.ext4", "busybox", "lz4", "strip", "runc", "nft")
    ),
]
CACHE = Path(tiny.__file__).resolve().parents[2] / ".cache" / "image"
MODULES = (
    "virtio_pci", "virtio_blk", "dm_crypt", "dm_integrity", "ecb", "xts", "authenc", "algif_skcipher", "aesni_intel",
    "seqiv", "essiv",
)  # fmt: skip
MARKER = "plaintext of a layer"
# After a change by the host the caches are dropped, so that the file is read from the disk again.
SCRIPT = f"""#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev; mount -t tmpfs tmpfs /run
for module in $(cat /lib/modules/scratch); do insmod "/lib/modules/$(uname -r)/$module.ko"; done
mkdir -p /run/peerpod; touch /run/peerpod/scratch-space.marker
setup() {{ python3 -I -S -m podvm setup-scratch-storage -device "$1"; echo "status $?"; }}
setup /dev/vdz
setup /dev/vda
setup /dev/vda
grep scratch /proc/mounts
ls -A /run/podvm | sed 's/^/left: /'
layer=/run/kata-containers/image/layer
yes '{MARKER}' | head -c 4000000 > $layer
sync; echo 3 > /proc/sys/vm/drop_caches
yes '{MARKER}' | head -c 4000000 | cmp - $layer && echo "layer is whole"
dmesg | grep -i 'checksum failed' && echo "integrity errors"
tr -d '\\0' < /dev/vda | grep -c '{MARKER}' | sed 's/^/in clear: /'
dd if=/dev/zero of=/dev/vda bs=1M seek=1 count=190 conv=notrunc 2>/dev/null; sync
echo 3 > /proc/sys/vm/drop_caches
cat $layer >/dev/null || echo "the host's change is noticed"
poweroff -f
"""


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    """The tiny image's, and after it what scratch space needs: the kernel unpacks both."""
    built = tiny.build(CACHE)
    source = kernel.unpack(kernel.fetch(CACHE / "kernel"), CACHE / "kernel")
    tree = Tree()
    for program, package in (("cryptsetup", "cryptsetup-bin"), ("mkfs.ext4", "e2fsprogs")):
        elf.add(tree, elf.find(program, package), to=f"usr/sbin/{program}")
    source.add_modules(tree, MODULES)
    tree.file("lib/modules/scratch", ("\n".join(source.in_load_order(MODULES)) + "\n").encode())
    tree.file("scratch-test", SCRIPT.encode(), mode=0o755)
    (tmp_path / "initrd").write_bytes(built.initrd.read_bytes() + cpio.archive(tree))
    return tmp_path / "initrd"


@pytest.mark.timeout(200)
def test_layers_are_kept_encrypted_and_whole(initrd: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(200 << 20)
    command = [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "768", "-smp", "1", "-nodefaults",
        "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", tiny.build(CACHE).kernel, "-initrd", initrd,
        "-append", f"{tiny.CMDLINE} rdinit=/scratch-test", "-drive", f"file={disk},if=none,id=d,format=raw",
        "-device", "virtio-blk-pci,drive=d",
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=True)
    said = [line.strip() for line in done.stdout.splitlines()]
    statuses = [line for line in said if line.startswith("status ")]
    assert statuses == ["status 1", "status 0", "status 0"], done.stdout
    assert "ENABLE_SCRATCH_SPACE demands it: there is no device /dev/vdz" in done.stdout
    assert "encrypted with a key of this boot" in done.stdout
    assert "/dev/mapper/scratch /run/kata-containers/image ext4 rw,nodev,noatime 0 0" in said
    assert not [line for line in said if line.startswith("left: ")]  # the header is gone
    assert "layer is whole" in said
    assert "integrity errors" not in said
    assert "in clear: 0" in said
    assert "the host's change is noticed" in said, done.stdout
