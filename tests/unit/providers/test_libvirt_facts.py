"""What a host says about itself: kinds of domains, confidential VMs, firmware, pools and networks."""

import pytest

from caa.errors import Misconfigured, ProviderError
from caa.model.instance import Arch
from providers.libvirt import facts

CAPABILITIES = """<capabilities><host><cpu><arch>{arch}</arch></cpu></host>
<guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/></arch></guest>
<guest><os_type>hvm</os_type><arch name='{arch}'>{domains}</arch></guest></capabilities>"""
SECURITY = "<launchSecurity supported='yes'><enum name='sectype'>{}</enum></launchSecurity>"
DOMAIN_CAPABILITIES = """<domainCapabilities><vcpu max='288'/>
<os supported='yes'><enum name='firmware'><value>efi</value></enum>
<loader supported='yes'><value>/usr/share/OVMF/OVMF_CODE_4M.fd</value>
<enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
<devices><tpm supported='yes'><enum name='backendModel'><value>emulator</value></enum></tpm></devices>
<features>{features}</features></domainCapabilities>"""


def capabilities(*kinds: str, arch: str = "x86_64") -> str:
    return CAPABILITIES.format(arch=arch, domains="".join(f"<domain type='{kind}'/>" for kind in kinds))


@pytest.mark.parametrize(
    ("kinds", "acceleration", "expected"),
    [
        (("qemu", "kvm"), "auto", "kvm"),
        (("qemu",), "auto", "qemu"),
        (("qemu", "kvm"), "qemu", "qemu"),
        (("test",), "auto", "test"),
    ],
)
def test_kvm_where_it_is_usable(kinds: tuple[str, ...], acceleration: str, expected: str) -> None:
    assert facts.guest_of(capabilities(*kinds), acceleration) == ("x86_64", expected)


@pytest.mark.parametrize(
    ("document", "acceleration", "message"),
    [
        (capabilities("qemu"), "kvm", "LIBVIRT_ACCELERATION is kvm, and the libvirt host has qemu"),
        (capabilities(), "auto", "none at all"),
        (capabilities("kvm", arch="riscv64"), "auto", "architecture riscv64"),
    ],
)
def test_hosts_that_cannot(document: str, acceleration: str, message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        facts.guest_of(document, acceleration)


@pytest.mark.parametrize(
    ("arch", "expected"),
    [("x86_64", Arch.AMD64), ("aarch64", Arch.ARM64), ("s390x", Arch.S390X), ("ppc64le", Arch.PPC64LE)],
)
def test_architectures(arch: str, expected: Arch) -> None:
    assert facts.facts(arch, "kvm", memory_mib=1).known_arch is expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("<sev supported='no'/><s390-pv supported='no'/>", set()),
        ("<sev supported='yes'><cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits></sev>", {"sev"}),
        ("<s390-pv supported='yes'/>", {"s390-pv"}),
        ("<tdx supported='yes'/>", {"tdx"}),
        (
            SECURITY.format("<value>sev</value><value>sev-snp</value>"),
            {"sev", "sev-snp"},
        ),
        ("<launchSecurity supported='no'/>", set()),
    ],
)
def test_kinds_of_confidential_vms(features: str, expected: set[str]) -> None:
    document = DOMAIN_CAPABILITIES.format(features=features)
    assert facts.facts("x86_64", "kvm", memory_mib=1, domain_capabilities=document).launch == expected


def test_everything_else() -> None:
    features = "<sev supported='yes'><cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits></sev>"
    found = facts.facts(
        "x86_64", "kvm", memory_mib=7, domain_capabilities=DOMAIN_CAPABILITIES.format(features=features)
    )
    assert (found.sev, found.max_vcpus, found.memory_mib) == ((51, 1), 288, 7)
    assert (found.uefi, found.secure_boot, found.tpm) == (True, True, True)
    assert found.loaders == {"/usr/share/OVMF/OVMF_CODE_4M.fd"}


def test_a_driver_without_domain_capabilities_says_nothing() -> None:
    found = facts.facts("i686", "test", memory_mib=1)
    assert (found.launch, found.uefi, found.max_vcpus) == (None, None, None)


def test_pools_and_volumes() -> None:
    pool = facts.pool_of(
        "<pool type='dir'><available>5</available><target><path>/var/lib/libvirt/images/</path></target></pool>"
    )
    assert pool == facts.PoolFacts(kind="dir", path="/var/lib/libvirt/images", available=5)
    volume = facts.volume_of(
        "<volume><capacity unit='bytes'>9</capacity><target><path>/p/b</path><format type='qcow2'/></target></volume>"
    )
    assert volume == facts.VolumeFacts(path="/p/b", format="qcow2", capacity=9)
    assert facts.volume_of("<volume><capacity>9</capacity></volume>").format == "raw"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("<network><forward mode='nat'/><ip><dhcp/></ip></network>", True),
        ("<network><ip/></network>", False),
        ("<network><forward mode='bridge'/></network>", None),
        ("<network><forward mode='open'/><ip><dhcp/></ip></network>", True),
    ],
)
def test_networks_with_dhcp(document: str, expected: bool | None) -> None:
    assert facts.has_dhcp(document) is expected


def test_cables() -> None:
    document = "<domain><devices><interface><mac address='52:54:00:AB:cd:ef'/></interface></devices></domain>"
    assert facts.macs(document) == {"52:54:00:ab:cd:ef"}


def test_a_document_that_is_none() -> None:
    with pytest.raises(ProviderError, match="cannot be read"):
        facts.pool_of("<pool")
