"""Which cloud a machine says it is in, from SMBIOS strings and CPUID as files."""

import struct
from pathlib import Path

import pytest

from podvm.clouds import machine, sources
from podvm.clouds.machine import Machine

AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
SIGNS = {
    "aws": machine.is_aws, "azure": machine.is_azure, "gcp": machine.is_gcp,
    "alibabacloud": machine.is_alibabacloud, "ibmcloud": machine.is_ibmcloud,
}  # fmt: skip
# What is known of each cloud's machines, and of those that only look like one.
MACHINES = [
    ("aws", {"sys_vendor": "Amazon EC2", "product_name": "m6a.large", "bios_vendor": "Amazon EC2"}),
    ("aws", {"sys_vendor": "Xen", "bios_version": "4.11.amazon"}),
    ("azure", {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": AZURE_TAG}),
    ("gcp", {"sys_vendor": "Google", "product_name": "Google Compute Engine"}),
    ("alibabacloud", {"sys_vendor": "Alibaba Cloud", "product_name": "Alibaba Cloud ECS"}),
    ("ibmcloud", {"sys_vendor": "IBM:Cloud Compute Server 1.0:bx2-2x8", "chassis_asset_tag": "ibmcloud"}),
    ("", {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "1234-5678", "product_name": "Virtual Machine"}),
    ("", {"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)", "bios_version": "1.16.2"}),
    ("", {"sys_vendor": "Xen", "bios_version": "4.17"}),
    ("", {}),
]


def made(root: Path, strings: dict[str, str], cpuid: str = "") -> Machine:
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in strings.items():
        (folder / name).write_text(f"{text}\n")
    if cpuid:
        (root / "dev/cpu/0").mkdir(parents=True)
        with (root / "dev/cpu/0/cpuid").open("wb") as file:  # the driver: an offset is a leaf
            file.seek(0x40000000)
            file.write(struct.pack("<I", 0x4000000B) + cpuid.encode().ljust(12, b"\0"))
    return Machine(root)


@pytest.mark.parametrize(("cloud", "strings"), MACHINES)
def test_at_most_one_cloud_is_recognized(tmp_path: Path, cloud: str, strings: dict[str, str]) -> None:
    here = made(tmp_path, strings)
    assert [name for name, sign in SIGNS.items() if sign(here)] == ([cloud] if cloud else [])


@pytest.mark.parametrize(
    ("strings", "vendor", "wanted"),
    [
        ({}, "Microsoft Hv", True),
        ({}, "KVMKVMKVM", False),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "own"}, "Microsoft Hv", False),
        ({"chassis_asset_tag": AZURE_TAG}, "", True),
    ],
)
def test_cpuid_decides_only_where_smbios_says_nothing(
    tmp_path: Path, strings: dict[str, str], vendor: str, wanted: bool
) -> None:
    assert machine.is_azure(made(tmp_path, strings, vendor)) is wanted


def test_the_order_of_the_sources() -> None:
    names = [one.name for one in sources(Machine(Path("/nonexistent")))]
    assert names == ["nocloud", "azure", "aws", "gcp", "alibabacloud", "configdrive", "ibmcloud"]


def test_a_machine_without_anything_has_no_source(tmp_path: Path) -> None:
    assert not any(one.present() for one in sources(Machine(tmp_path)) if one.name != "nocloud")
