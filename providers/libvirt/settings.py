"""What an operator may set for `libvirt`. Rows and their rules only; nothing is read here."""

import re
from dataclasses import replace
from urllib.parse import urlsplit

from caa.config.kinds import BOOL, OPTIONAL_PATH, STRING, choice, duration, integer, matching
from caa.config.load import Settings
from caa.config.setting import AnySetting, Kind, Setting
from caa.provider import rows

_CPU_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_NAME = matching(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", "a name: letters, digits, '.', '_', '+' or '-'")
_VOLUME = matching(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}", "a volume's name: letters, digits, '.', '_', '+' or '-'")


def _parse_cpuset(text: str) -> str:
    for part in text.split(",") if text else ():
        found = _CPU_RANGE.fullmatch(part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError("not a set of CPUs")
    return text


def _parse_uri(text: str) -> str:
    if not urlsplit(text).scheme or not text.isprintable() or " " in text:
        raise ValueError("not a libvirt URI")
    if urlsplit(text).password:
        raise ValueError("a password in a URI is seen by everybody")
    return text


def _parse_firmware(text: str) -> str:
    if text.lower() in ("auto", "none"):
        return text.lower()
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("neither a word nor a path")
    return text


def _parse_policy(text: str) -> int | None:
    value = int(text, 0) if text else None
    if value is not None and not 0 <= value < 1 << 64:
        raise ValueError("out of range")
    return value


_URI: Kind[str] = Kind(
    name="URI",
    allowed="a libvirt URI without a password, such as qemu:///system or qemu+ssh://root@host/system",
    parse=_parse_uri,
    show=str,
)
_CPUSET: Kind[str] = Kind(
    name="CPU set", allowed="CPUs and ranges of them, such as 0-3,8, or nothing", parse=_parse_cpuset, show=str
)
_FIRMWARE: Kind[str] = Kind(
    name="firmware", allowed="auto, none, or the path of a firmware image", parse=_parse_firmware, show=str
)
_POLICY: Kind[int | None] = Kind(
    name="policy",
    allowed="a number such as 0x30000, or nothing",
    parse=_parse_policy,
    show=lambda value: "" if value is None else hex(value),
)

URI = Setting(
    name="libvirt_uri",
    kind=_URI,
    default="qemu+ssh://root@192.168.122.1/system?no_verify=1",
    help="the libvirt daemon that makes the pod VMs",
    env="LIBVIRT_URI",
    flag="uri",
)
POOL = Setting(
    name="libvirt_pool",
    kind=_NAME,
    default="default",
    help="the storage pool of images, root disks and console logs; kept in files (dir, fs or netfs)",
    env="LIBVIRT_POOL",
    flag="pool-name",
)
NETWORK = Setting(
    name="libvirt_network",
    kind=_NAME,
    default="default",
    help="the libvirt network of the pod VMs; a DHCP server has to be on it",
    env="LIBVIRT_NET",
    flag="network-name",
)
VOLUME = Setting(
    name="libvirt_volume",
    kind=_VOLUME,
    default="podvm-base.qcow2",
    help="the volume with the pod VM image",
    env="LIBVIRT_VOL_NAME",
    flag="vol-name",
)
IMAGES = replace(
    rows.IMAGE_ALLOWLIST,
    default=(),
    live=False,
    help="Volumes that a pod may name in its image annotation, as patterns with * and ?; LIBVIRT_VOL_NAME is always "
    "allowed. Empty allows no other, for a pool also holds other pods' disks.",
)
TAGS = replace(rows.TAGS, live=False, help="Tags in the metadata of each domain, beside our own.")
LAUNCH_SECURITY = Setting(
    name="libvirt_launch_security",
    kind=choice("sev", "sev-snp", "tdx", "s390-pv", empty=True),
    default="",
    help="the kind of confidential VM; empty with DISABLECVM=false: what the host has",
    env="LIBVIRT_LAUNCH_SECURITY",
    flag="launch-security",
)
LAUNCH_POLICY = Setting(
    name="libvirt_launch_policy",
    kind=_POLICY,
    default=None,
    help="the guest policy of a sev, sev-snp or tdx VM; empty: no debugging, as far as each kind allows",
    env="LIBVIRT_LAUNCH_POLICY",
    flag="launch-policy",
)
DISABLE_CVM = replace(rows.disable_cvm(default=True), live=False)
FIRMWARE = Setting(
    name="libvirt_firmware",
    kind=_FIRMWARE,
    default="auto",
    help="UEFI: auto lets libvirt choose, none is the BIOS (x86_64), else the path of the image on the libvirt host",
    env="LIBVIRT_EFI_FIRMWARE",
    flag="firmware",
)
FIRMWARE_VARS = Setting(
    name="libvirt_firmware_vars",
    kind=OPTIONAL_PATH,
    default=None,
    help="the template of the UEFI variables, for a firmware given by path; empty: libvirt's choice",
    env="LIBVIRT_EFI_VARS",
    flag="firmware-vars",
)
SECURE_BOOT = Setting(
    name="libvirt_secure_boot",
    kind=BOOL,
    default=False,
    help="UEFI secure boot (x86_64, aarch64)",
    env="LIBVIRT_SECURE_BOOT",
    flag="secure-boot",
)
TPM = Setting(
    name="libvirt_tpm",
    kind=BOOL,
    default=False,
    help="give each pod VM a TPM 2.0 (swtpm on the libvirt host)",
    env="LIBVIRT_TPM",
    flag="tpm",
)
CPU = Setting(
    name="libvirt_cpu",
    kind=integer(1, 4096),
    default=2,
    help="vCPUs of a pod VM whose pod asks for none",
    env="LIBVIRT_CPU",
    flag="cpu",
)
MEMORY = Setting(
    name="libvirt_memory",
    kind=integer(64, 1 << 26),
    default=8192,
    help="MiB of memory of a pod VM whose pod asks for none",
    env="LIBVIRT_MEMORY",
    flag="memory",
)
OVERCOMMIT = Setting(
    name="libvirt_memory_overcommit",
    kind=BOOL,
    default=False,
    help="make a pod VM although the host has less free memory than it may use",
    env="LIBVIRT_MEMORY_OVERCOMMIT",
    flag="memory-overcommit",
)
CPUSET = Setting(
    name="libvirt_cpuset",
    kind=_CPUSET,
    default="",
    help="host CPUs that the pod VMs may run on; empty is all",
    env="LIBVIRT_CPUSET",
    flag="cpuset",
)
ROOT_DISK_SIZE = Setting(
    name="libvirt_root_disk_size",
    kind=integer(0, 1 << 16),
    default=10,
    help="GiB of the root disk; never less than the image has, 0 is 10",
    env="LIBVIRT_ROOT_DISK_SIZE",
    flag="root-disk-size",
)
DATA_DIR = Setting(
    name="libvirt_data_dir",
    kind=STRING,
    default="/var/lib/libvirt/images",
    help="without effect, as in the reference: LIBVIRT_POOL says where files are",
    flag="data-dir",
)
ACCELERATION = Setting(
    name="libvirt_acceleration",
    kind=choice("auto", "kvm", "qemu"),
    default="auto",
    help="auto: kvm where the host has it, else emulation (qemu), which is slow",
    env="LIBVIRT_ACCELERATION",
    flag="acceleration",
)
KERNEL = Setting(
    name="libvirt_kernel",
    kind=OPTIONAL_PATH,
    default=None,
    help="direct boot: a kernel on the libvirt host; then there is a root disk only when LIBVIRT_VOL_NAME is set",
    env="LIBVIRT_KERNEL",
    flag="kernel",
)
INITRD = Setting(
    name="libvirt_initrd",
    kind=OPTIONAL_PATH,
    default=None,
    help="direct boot: the initramfs on the libvirt host",
    env="LIBVIRT_INITRD",
    flag="initrd",
)
CMDLINE = Setting(
    name="libvirt_cmdline",
    kind=matching(r"[ -~]{0,2000}", "printable ASCII, 2000 characters at most"),
    default="console=ttyS0",
    help="direct boot: the kernel's command line",
    env="LIBVIRT_CMDLINE",
    flag="cmdline",
)
ADDRESS_TIMEOUT = Setting(
    name="libvirt_address_timeout",
    kind=duration(1.0),
    default=180.0,
    help="how long a pod VM may take from its start to an address",
    env="LIBVIRT_ADDRESS_TIMEOUT",
    flag="address-timeout",
)
CALLS = Setting(
    name="libvirt_calls",
    kind=integer(1, 64),
    default=8,
    help="calls of libvirt at the same time",
    env="LIBVIRT_CALLS",
    flag="calls",
)

SETTINGS: tuple[AnySetting, ...] = (
    URI, POOL, NETWORK, VOLUME, IMAGES, TAGS, LAUNCH_SECURITY, LAUNCH_POLICY, DISABLE_CVM, FIRMWARE, FIRMWARE_VARS,
    SECURE_BOOT, TPM, CPU, MEMORY, OVERCOMMIT, CPUSET, ROOT_DISK_SIZE, DATA_DIR, ACCELERATION, KERNEL, INITRD, CMDLINE,
    ADDRESS_TIMEOUT, CALLS,
)  # fmt: skip


def problem(values: Settings) -> str:
    """What cannot work together, in one sentence that names the settings; "" when all is well."""
    if values[LAUNCH_SECURITY] and values[DISABLE_CVM] and values.is_set(DISABLE_CVM):
        return (
            f"LIBVIRT_LAUNCH_SECURITY is {values[LAUNCH_SECURITY]} and DISABLECVM is true: "
            "unset one of them, a confidential VM is not an ordinary one"
        )
    if values[SECURE_BOOT] and values[FIRMWARE] == "none":
        return "LIBVIRT_SECURE_BOOT needs UEFI, and LIBVIRT_EFI_FIRMWARE is none: set it to auto"
    if values[INITRD] and not values[KERNEL]:
        return "LIBVIRT_INITRD is set without LIBVIRT_KERNEL: set both, or none"
    if values[FIRMWARE_VARS] and not values[FIRMWARE].startswith("/"):
        return "LIBVIRT_EFI_VARS goes with a firmware given by path: set LIBVIRT_EFI_FIRMWARE to it"
    return ""
