"""The tiny image boots under QEMU with user data from a drive, and its agent answers through the forwarder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from caa.testing.qemu import SERVING, Machine, Rack
from podvm.image import tiny

pytestmark = pytest.mark.needs("qemu-system-x86_64", "genisoimage", "runc", "nft", "busybox", "lz4", "strip")


def test_the_agent_answers_through_the_forwarder(boot_tiny: Callable[..., Machine]) -> None:
    machine = boot_tiny()
    assert machine.check(within=60) == SERVING
    assert "pod network: eth0 over eth0 to 10.199.0.1" in machine.console()
    assert "no notrack rules" not in machine.console()


def test_user_data_on_a_cd(rack: Rack, tiny_image: tiny.Tiny) -> None:
    direct = ("-kernel", tiny_image.kernel, "-initrd", tiny_image.initrd, "-append", tiny_image.cmdline)
    drive = f"file={rack.drive()},if=none,id=cd,media=cdrom,readonly=on"
    machine = rack.start(*direct, "-device", "virtio-scsi-pci", "-drive", drive, "-device", "scsi-cd,drive=cd")
    machine.wait_for("pod network is there", within=60)


def test_a_machine_that_cannot_boot_says_why_and_ends(boot_tiny: Callable[..., Machine]) -> None:
    machine = boot_tiny(document=b"#cloud-config\nruncmd: [reboot]\n")
    assert machine.process.wait(60) == 0
    assert "podvm: failed: user data line 2: unknown key 'runcmd'" in machine.console()


def test_a_fixed_address_needs_no_dhcp(boot_tiny: Callable[..., Machine]) -> None:
    machine = boot_tiny(words="podvm.address=10.199.0.15/24 podvm.gateway=10.199.0.1")
    assert machine.check(within=60) == SERVING


def test_two_builds_are_the_same_bytes(tiny_image: tiny.Tiny, tmp_path: Path) -> None:
    cached = next((tiny_image.kernel.parents[1] / "kernel").glob("*.deb"))
    again = tiny.build(tmp_path, kernel_package=cached)
    assert again.initrd.read_bytes() == tiny_image.initrd.read_bytes()
    assert again.kernel.read_bytes() == tiny_image.kernel.read_bytes()
