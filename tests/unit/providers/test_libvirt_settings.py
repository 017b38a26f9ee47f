"""Rows of `libvirt`: the reference's names and defaults, and what is refused with a sentence."""

from collections.abc import Mapping

import pytest

import providers.libvirt
from caa.config.load import load
from caa.errors import ConfigError
from providers.libvirt import settings

REFERENCE = {
    "uri": ("LIBVIRT_URI", "qemu+ssh://root@192.168.122.1/system?no_verify=1"),
    "pool-name": ("LIBVIRT_POOL", "default"),
    "network-name": ("LIBVIRT_NET", "default"),
    "vol-name": ("LIBVIRT_VOL_NAME", "podvm-base.qcow2"),
    "launch-security": ("LIBVIRT_LAUNCH_SECURITY", ""),
    "cpu": ("LIBVIRT_CPU", "2"),
    "memory": ("LIBVIRT_MEMORY", "8192"),
    "cpuset": ("LIBVIRT_CPUSET", ""),
    "root-disk-size": ("LIBVIRT_ROOT_DISK_SIZE", "10"),
    "data-dir": ("", "/var/lib/libvirt/images"),
    "disable-cvm": ("DISABLECVM", "true"),
}


def loaded(environ: Mapping[str, str] = {}) -> providers.libvirt.translate.Site:
    return providers.libvirt.site(load(settings.SETTINGS, environ))


@pytest.mark.parametrize("flag", REFERENCE)
def test_the_reference_s_options(flag: str) -> None:
    row = next(one for one in settings.SETTINGS if one.flag == flag)
    env, default = REFERENCE[flag]
    assert row.env == env or not env
    assert row.kind.show(row.default) == default


def test_firmware_is_the_one_default_that_differs() -> None:
    """The reference's path exists on Debian only; libvirt finds the same image there and others elsewhere."""
    row = settings.FIRMWARE
    assert (row.flag, row.env, row.default) == ("firmware", "LIBVIRT_EFI_FIRMWARE", "auto")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LIBVIRT_URI", "no uri"),
        ("LIBVIRT_URI", "qemu+ssh://root:hunter2@host/system"),
        ("LIBVIRT_CPUSET", "3-1"),
        ("LIBVIRT_CPUSET", "0,,1"),
        ("LIBVIRT_CPUSET", "a"),
        ("LIBVIRT_CPU", "0"),
        ("LIBVIRT_MEMORY", "1.5"),
        ("LIBVIRT_ROOT_DISK_SIZE", "-1"),
        ("LIBVIRT_LAUNCH_SECURITY", "sgx"),
        ("LIBVIRT_EFI_FIRMWARE", "OVMF.fd"),
        ("LIBVIRT_LAUNCH_POLICY", "0x1ffffffffffffffff"),
        ("LIBVIRT_LAUNCH_POLICY", "much"),
        ("LIBVIRT_VOL_NAME", "../base"),
        ("LIBVIRT_POOL", "a b"),
        ("LIBVIRT_CMDLINE", "a\nb"),
    ],
)
def test_values_that_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load(settings.SETTINGS, {key: value})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LIBVIRT_LAUNCH_SECURITY": "tdx", "DISABLECVM": "true"}, "unset one"),
        ({"LIBVIRT_SECURE_BOOT": "true", "LIBVIRT_EFI_FIRMWARE": "none"}, "LIBVIRT_SECURE_BOOT needs UEFI"),
        ({"LIBVIRT_INITRD": "/initrd"}, "without LIBVIRT_KERNEL"),
        ({"LIBVIRT_EFI_VARS": "/vars"}, "LIBVIRT_EFI_VARS"),
    ],
)
def test_settings_that_contradict_each_other(environ: Mapping[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        providers.libvirt.make(load(settings.SETTINGS, environ))


def test_launch_security_alone_is_enough() -> None:
    site = loaded({"LIBVIRT_LAUNCH_SECURITY": "SEV-SNP", "LIBVIRT_LAUNCH_POLICY": "0x30000"})
    assert (site.launch, site.policy, site.confidential) == ("sev-snp", 0x30000, False)


def test_direct_boot_needs_no_volume() -> None:
    assert loaded({"LIBVIRT_KERNEL": "/k"}).volume == ""
    assert loaded({"LIBVIRT_KERNEL": "/k", "LIBVIRT_VOL_NAME": "base.qcow2"}).volume == "base.qcow2"
    assert loaded().volume == "podvm-base.qcow2"


def test_a_root_disk_of_nothing_is_the_default() -> None:
    assert loaded({"LIBVIRT_ROOT_DISK_SIZE": "0"}).root_bytes == 10 << 30


def test_pods_choose_no_image_unless_the_operator_says_so() -> None:
    assert loaded().images == ()
    assert loaded({"IMAGE_ALLOWLIST": "gpu-*,old"}).images == ("gpu-*", "old")


def test_policies_are_shown_as_they_are_written() -> None:
    kind = settings.LAUNCH_POLICY.kind
    assert [kind.show(kind.parse(one)) for one in ("0x30000", "")] == ["0x30000", ""]
