"""What the machine says about itself: SMBIOS strings and the hypervisor's CPUID name. Nothing is asked of a network."""

import os
from collections.abc import Callable
from pathlib import Path

_HYPERVISOR_LEAF = 0x40000000  # EBX, ECX, EDX hold the hypervisor's 12 letters


class Machine:
    """The machine below `root`, which tests replace."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def smbios(self, name: str) -> str:
        """A string of `/sys/class/dmi/id`, "" where there is none (s390x, ppc64le, some direct boots)."""
        try:
            return (self.root / "sys/class/dmi/id" / name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def hypervisor(self) -> str:
        """The name in CPUID, such as "Microsoft Hv"; "" where the kernel shows none (`/dev/cpu/0/cpuid`)."""
        try:
            descriptor = os.open(self.root / "dev/cpu/0/cpuid", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return os.pread(descriptor, 16, _HYPERVISOR_LEAF)[4:].rstrip(b"\0").decode("ascii", "replace")
        except OSError:
            return ""
        finally:
            os.close(descriptor)


Sign = Callable[[Machine], bool]


def is_aws(machine: Machine) -> bool:
    """Nitro says "Amazon EC2"; the older Xen types say "Xen" and have a BIOS version such as "4.11.amazon"."""
    return machine.smbios("sys_vendor") == "Amazon EC2" or machine.smbios("bios_version").endswith(".amazon")


def is_azure(machine: Machine) -> bool:
    """The chassis tag that only Azure gives; a Hyper-V of one's own has another one.

    Where there is no SMBIOS at all the hypervisor's name has to do, as in the reference.
    """
    tag = machine.smbios("chassis_asset_tag")
    if tag or machine.smbios("sys_vendor"):
        return tag == "7783-7084-3265-9085-8269-3286-77"
    return machine.hypervisor() == "Microsoft Hv"


def is_gcp(machine: Machine) -> bool:
    """Google Cloud's machines name their product; Google's other hardware has another vendor string."""
    return machine.smbios("product_name") == "Google Compute Engine" or machine.smbios("sys_vendor") == "Google"


def is_alibabacloud(machine: Machine) -> bool:
    """ECS names its product."""
    return "Alibaba Cloud ECS" in (machine.smbios("product_name"), machine.smbios("bios_version"))


def is_ibmcloud(machine: Machine) -> bool:
    """IBM's VPC; the strings are from field reports, so `-source ibmcloud` stays for an image that knows better."""
    tag, vendor = machine.smbios("chassis_asset_tag"), machine.smbios("sys_vendor")
    return tag.lower() == "ibmcloud" or vendor.startswith("IBM:Cloud")
