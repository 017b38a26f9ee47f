"""The domain's XML for each architecture and kind of confidential VM: its elements, and libvirt's own schema."""

import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from caa.errors import Misconfigured
from caa.model.ids import SandboxId
from caa.provider.contract import LaunchRequest, Owner
from providers.libvirt import domain, translate
from providers.libvirt.facts import Facts, PoolFacts, VolumeFacts
from providers.libvirt.translate import Site

SITE = Site(pool="default", network="default", volume="podvm-base.qcow2", vcpus=2, memory_mib=2048)
POOL = PoolFacts(kind="dir", path="/var/lib/libvirt/images", available=1 << 40)
IMAGE = VolumeFacts(path="/var/lib/libvirt/images/podvm-base.qcow2", format="qcow2", capacity=3 << 30)
DATA = VolumeFacts(path="/var/lib/libvirt/images/pvc-1.raw", format="raw", capacity=1 << 30)
KERNEL = {"kernel": "/boot/vmlinux", "initrd": "/boot/initrd", "cmdline": "console=ttyS0 quiet"}
ALL_KINDS = frozenset({"sev", "sev-snp", "tdx", "s390-pv"})
ARCHES = ["x86_64", "aarch64", "s390x", "ppc64le"]


def request(**changes: object) -> LaunchRequest:
    plain = LaunchRequest(
        name="podvm-web-0a1b2c3d",
        sandbox=SandboxId("sandbox-1"),
        owner=Owner(cluster="c<&>'\"", node="n"),
        token="t",
        user_data=b"secret",
        pod="web",
        namespace="default",
    )
    return replace(plain, **changes)


def facts(arch: str = "x86_64", kind: str = "kvm", **changes: object) -> Facts:
    return replace(Facts(arch=arch, kind=kind, launch=ALL_KINDS, sev=(51, 1)), **changes)


def document(
    site: Site = SITE,
    host: Facts | None = None,
    *,
    image: VolumeFacts | None = IMAGE,
    data: tuple[VolumeFacts, ...] = (),
) -> str:
    plan = translate.plan(site, request(), uuid="9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e", now=1.5)
    return domain.domain(site, plan, parts=domain.Parts(facts=host or facts(), pool=POOL, image=image, data=data))


def tree(
    site: Site = SITE,
    host: Facts | None = None,
    *,
    image: VolumeFacts | None = IMAGE,
    data: tuple[VolumeFacts, ...] = (),
) -> ElementTree.Element:
    return ElementTree.fromstring(document(site, host, image=image, data=data))


def element(root: ElementTree.Element, path: str) -> str:
    found = root.find(path)
    return "" if found is None else ElementTree.tostring(found, encoding="unicode").strip()


def assert_valid(text: str, folder: Path) -> None:
    file = folder / "domain.xml"
    file.write_text(text)
    done = subprocess.run(["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SITES = {
    "plain": {},
    "direct boot": KERNEL,
    "cpuset": {"cpuset": "0-3,8"},
}
UEFI_SITES = {
    "secure boot": {"secure_boot": True},
    "path": {"firmware": "/usr/share/OVMF/OVMF_CODE_4M.fd"},
    "path and variables": {"firmware": "/f.fd", "firmware_vars": "/v.fd", "secure_boot": True},
    "bios": {"firmware": "none", **KERNEL},
    "tpm": {"tpm": True},
}


@pytest.mark.needs("virt-xml-validate")
class TestSchema:
    """libvirt's own schema, as installed; `VIR_DOMAIN_DEFINE_VALIDATE` holds each document against it once more."""

    @pytest.mark.parametrize("kind", ["kvm", "qemu"])
    @pytest.mark.parametrize("arch", ARCHES)
    @pytest.mark.parametrize("changes", SITES.values(), ids=SITES)
    def test_every_architecture(self, arch: str, kind: str, changes: dict[str, object], tmp_path: Path) -> None:
        assert_valid(document(replace(SITE, **changes), facts(arch, kind), data=(DATA,)), tmp_path)

    @pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
    @pytest.mark.parametrize("changes", UEFI_SITES.values(), ids=UEFI_SITES)
    def test_firmware_and_tpm(self, arch: str, changes: dict[str, object], tmp_path: Path) -> None:
        assert_valid(document(replace(SITE, **changes), facts(arch)), tmp_path)

    @pytest.mark.parametrize(
        ("arch", "launch", "changes"),
        [
            ("x86_64", "sev", {}),
            ("x86_64", "sev", KERNEL),
            ("x86_64", "sev", {"policy": 7}),
            ("x86_64", "sev", {"firmware": "/usr/share/OVMF/OVMF.amdsev.fd"}),
            ("s390x", "s390-pv", {}),
        ],
    )
    def test_launch_security(self, arch: str, launch: str, changes: dict[str, object], tmp_path: Path) -> None:
        assert_valid(document(replace(SITE, launch=launch, **changes), facts(arch)), tmp_path)

    @pytest.mark.parametrize("launch", ["sev-snp", "tdx"])
    def test_what_the_schema_of_9_0_lacks_is_only_the_element_itself(self, launch: str, tmp_path: Path) -> None:
        root = tree(replace(SITE, launch=launch, firmware="/usr/share/OVMF/OVMF.fd"))
        security = root.find("launchSecurity")
        assert security is not None
        root.remove(security)
        assert_valid(domain.text(root), tmp_path)


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        ("sev", "<cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits><policy>0x3</policy>"),
        ("sev-snp", "<cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits><policy>0x30000</policy>"),
        ("tdx", "<policy>0x10000000</policy><quoteGenerationService />"),
    ],
)
def test_launch_security_of_x86(launch: str, expected: str) -> None:
    root = tree(replace(SITE, launch=launch))
    assert element(root, "launchSecurity") == f'<launchSecurity type="{launch}">{expected}</launchSecurity>'
    assert element(root, "cpu") == '<cpu mode="host-passthrough" />'


def test_launch_security_of_s390() -> None:
    root = tree(replace(SITE, launch="s390-pv"), facts("s390x"))
    assert element(root, "launchSecurity") == '<launchSecurity type="s390-pv" />'


def test_a_policy_of_the_operator() -> None:
    assert "<policy>0x5</policy>" in document(replace(SITE, launch="sev", policy=5))


@pytest.mark.parametrize("launch", ["sev", "sev-snp"])
def test_a_kernel_that_is_given_is_measured(launch: str) -> None:
    root = tree(replace(SITE, launch=launch, **KERNEL))
    security = root.find("launchSecurity")
    assert security is not None
    assert security.get("kernelHashes") == "yes"
    assert root.find("os[@firmware='efi']") is not None


@pytest.mark.parametrize(("arch", "launch"), [("x86_64", "sev"), ("x86_64", "tdx"), ("s390x", "s390-pv")])
def test_devices_of_a_confidential_vm(arch: str, launch: str) -> None:
    """Each virtio device goes through shared buffers, there is no agent of the host in the guest, no option ROM."""
    root = tree(replace(SITE, launch=launch), facts(arch))
    devices = root.findall("devices/disk") + root.findall("devices/interface") + root.findall("devices/rng")
    assert len(devices) == 4
    assert all(one.find("driver[@iommu='on']") is not None for one in devices)
    assert root.find("devices/channel") is None
    assert root.find("devices/interface/rom[@enabled='no']") is not None


@pytest.mark.parametrize("launch", ["sev-snp", "tdx"])
def test_a_measured_firmware_has_no_state(launch: str) -> None:
    root = tree(replace(SITE, launch=launch, firmware="/usr/share/OVMF/OVMF.fd"))
    assert element(root, "os/loader") == '<loader type="rom" stateless="yes">/usr/share/OVMF/OVMF.fd</loader>'
    assert root.find("os/nvram") is None
    assert root.find("os").get("firmware") is None  # type: ignore[union-attr]


def test_tdx_asks_for_the_split_interrupt_controller() -> None:
    assert element(tree(replace(SITE, launch="tdx")), "features/ioapic") == '<ioapic driver="qemu" />'


def test_a_host_that_cannot_is_refused() -> None:
    with pytest.raises(Misconfigured, match="LIBVIRT_LAUNCH_SECURITY is tdx, and the libvirt host has sev"):
        document(replace(SITE, launch="tdx"), facts(launch=frozenset({"sev"})))
    with pytest.raises(Misconfigured, match="no kind of confidential VM"):
        document(replace(SITE, launch="sev"), facts(launch=frozenset()))


def test_a_confidential_vm_is_never_an_ordinary_one() -> None:
    """DISABLECVM=false without a kind: what the host has, the strongest first, or an error."""
    site = replace(SITE, confidential=True)
    assert domain.launch_kind(site, facts(launch=frozenset({"sev", "sev-snp"}))) == "sev-snp"
    for offered in (frozenset[str](), None):
        with pytest.raises(Misconfigured, match="DISABLECVM is false"):
            document(site, facts(launch=offered))
    assert domain.launch_kind(SITE, facts()) == ""


def test_a_host_that_does_not_say_is_tried() -> None:
    assert domain.launch_kind(replace(SITE, launch="tdx"), facts(launch=None)) == "tdx"


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("s390x", {"secure_boot": True}, "have no UEFI"),
        ("ppc64le", {"firmware": "/f.fd"}, "have no UEFI"),
        ("s390x", {"tpm": True}, "LIBVIRT_TPM"),
        ("x86_64", {"launch": "tdx", "firmware": "none"}, "tdx needs UEFI"),
        ("x86_64", {"launch": "s390-pv"}, "LIBVIRT_LAUNCH_SECURITY is s390-pv"),
        ("s390x", {"launch": "sev"}, "LIBVIRT_LAUNCH_SECURITY is sev"),
        ("aarch64", {"firmware": "none"}, "UEFI only"),
    ],
)
def test_settings_that_do_not_fit_the_host(arch: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        document(replace(SITE, **changes), facts(arch))


def test_defect_a_firmware_path_beside_autoselection() -> None:
    """libvirt 9.0 refuses `firmware='efi'` with a path (providers.md 5.2, error 35): either is written alone."""
    by_path = tree(replace(SITE, firmware="/usr/share/OVMF/OVMF_CODE_4M.fd"))
    assert by_path.find("os").attrib == {}  # type: ignore[union-attr]
    assert element(by_path, "os/loader").startswith('<loader readonly="yes" type="pflash">')
    auto = tree()
    assert auto.find("os").attrib == {"firmware": "efi"}  # type: ignore[union-attr]
    assert auto.find("os/loader") is None
    assert [one.attrib for one in auto.findall("os/firmware/feature")] == [
        {"enabled": "no", "name": "secure-boot"},
        {"enabled": "no", "name": "enrolled-keys"},
    ]


def test_defect_kvm_only() -> None:
    assert tree(host=facts(kind="qemu")).get("type") == "qemu"
    assert element(tree(host=facts(kind="qemu")), "cpu") == '<cpu mode="maximum" />'
    assert tree(host=facts(kind="kvm")).get("type") == "kvm"


@pytest.mark.parametrize(
    ("arch", "machine", "console"),
    [
        ("x86_64", "q35", "serial"),
        ("aarch64", "virt", "serial"),
        ("s390x", "s390-ccw-virtio", "console"),
        ("ppc64le", "pseries", "serial"),
    ],
)
def test_machines(arch: str, machine: str, console: str) -> None:
    root = tree(host=facts(arch))
    assert element(root, "os/type") == f'<type arch="{arch}" machine="{machine}">hvm</type>'
    source = root.find(f"devices/{console}/source")
    assert source is not None
    assert source.get("path") == "/var/lib/libvirt/images/podvm-web-0a1b2c3d-console.log"


def test_disks() -> None:
    """Data volumes are raw whatever libvirt takes them for: it looks at what a guest may have written."""
    root = tree(data=(DATA, replace(DATA, path="/x/pvc-2", format="qcow2")))
    found = [
        (
            disk.find("source").get("file"),  # type: ignore[union-attr]
            disk.find("target").get("dev"),  # type: ignore[union-attr]
            disk.find("driver").get("type"),  # type: ignore[union-attr]
            disk.findtext("serial"),
            disk.find("readonly") is not None,
        )
        for disk in root.findall("devices/disk")
    ]
    folder = "/var/lib/libvirt/images"
    assert found == [
        (f"{folder}/podvm-web-0a1b2c3d-root.qcow2", "vda", "qcow2", "caa-root", False),
        (f"{folder}/podvm-web-0a1b2c3d-seed.iso", "vdb", "raw", "caa-seed", True),
        (f"{folder}/pvc-1.raw", "vdc", "raw", "caa-data-0", False),
        ("/x/pvc-2", "vdd", "raw", "caa-data-1", False),
    ]


def test_direct_boot_without_a_root_disk() -> None:
    root = tree(replace(SITE, volume="", **KERNEL), image=None)
    assert [one.findtext("serial") for one in root.findall("devices/disk")] == ["caa-seed"]
    assert root.findtext("os/kernel") == "/boot/vmlinux"
    assert root.findtext("os/initrd") == "/boot/initrd"
    assert root.findtext("os/cmdline") == "console=ttyS0 quiet"
    assert root.find("os").attrib == {}  # type: ignore[union-attr]


def test_metadata_comes_back_and_nothing_secret_is_in_the_document() -> None:
    text = document()
    assert "secret" not in text
    root = ElementTree.fromstring(text)
    ours = root.find(f"metadata/{{{translate.NAMESPACE}}}podvm")
    assert ours is not None
    plan = translate.plan(SITE, request(), uuid="9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e", now=1.5)
    again = translate.record_of(
        ElementTree.tostring(ours, encoding="unicode"), name=plan.record.name, uuid=plan.record.uuid
    )
    assert again == plan.record


def test_a_pod_vm_never_begins_anew() -> None:
    root = tree()
    assert {root.findtext(one) for one in ("on_poweroff", "on_reboot", "on_crash")} == {"destroy"}


def test_cpuset() -> None:
    assert element(tree(replace(SITE, cpuset="0-3,8")), "vcpu") == '<vcpu cpuset="0-3,8">2</vcpu>'


@pytest.mark.parametrize(("wanted", "capacity"), [(10 << 30, 10 << 30), (1 << 30, 3 << 30)])
def test_the_root_disk_is_never_smaller_than_the_image(wanted: int, capacity: int) -> None:
    plan = translate.plan(SITE, request(), uuid="u", now=0)
    volume = ElementTree.fromstring(domain.root_volume(plan.record, IMAGE, size=wanted))
    assert volume.findtext("capacity") == str(capacity)
    assert volume.findtext("backingStore/path") == IMAGE.path
    assert element(volume, "backingStore/format") == '<format type="qcow2" />'


def test_defect_user_data_that_everybody_reads() -> None:
    """The seed holds the pod VM's TLS key (the reference: mode 644)."""
    volume = ElementTree.fromstring(domain.raw_volume("podvm-x-seed.iso", 4096))
    assert volume.findtext("target/permissions/mode") == "0600"
