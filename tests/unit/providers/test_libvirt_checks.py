"""What `check` says of a host, subject by subject: how bad it is, what it is, what to do. Over a pretended host."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from caa.errors import InvalidRequest, Misconfigured, ProviderError
from caa.model.instance import Finding, Severity
from providers.libvirt import checks
from providers.libvirt.facts import Facts, PoolFacts, VolumeFacts
from providers.libvirt.faults import ConnectionLost
from providers.libvirt.translate import Site

SITE = Site(pool="images", network="pods", volume="podvm.qcow2", vcpus=2, memory_mib=2048)
FACTS = Facts(
    arch="x86_64",
    kind="kvm",
    memory_mib=64 << 10,
    max_vcpus=64,
    launch=frozenset({"sev-snp"}),
    uefi=True,
    secure_boot=True,
    tpm=True,
    loaders=frozenset({"/usr/share/OVMF/OVMF_CODE_4M.fd"}),
)


@dataclass
class Host:
    """Answers, or errors in their place."""

    known: Facts = FACTS
    free: int | None = 32 << 10
    room: int = 100 << 30
    dhcp: bool | None = True
    errors: dict[str, ProviderError] = field(default_factory=dict)

    def _unless(self, what: str, value: Any) -> Any:
        if what in self.errors:
            raise self.errors[what]
        return value

    def facts(self) -> Facts:
        found: Facts = self._unless("facts", self.known)
        return found

    def pool(self, name: str) -> PoolFacts:
        found: PoolFacts = self._unless("pool", PoolFacts(kind="dir", path="/pool", available=self.room))
        return found

    def network(self, name: str) -> bool | None:
        found: bool | None = self._unless("network", self.dhcp)
        return found

    def image(self, pool: str, name: str, *, boots: bool) -> VolumeFacts:
        found: VolumeFacts = self._unless("volume", VolumeFacts(path=f"/pool/{name}", format="qcow2", capacity=1 << 30))
        return found

    def free_memory(self) -> int | None:
        return self.free


def found(host: Host, site: Site = SITE) -> dict[str, Finding]:
    """By subject; every finding that is not well says what to do."""
    made: Any = host
    findings = checks.findings(made, site)
    assert all(one.remedy for one in findings if one.severity is not Severity.OK)
    return {one.subject: one for one in findings}


def test_a_host_where_all_is_well() -> None:
    subjects = found(Host())
    assert {one.severity for one in subjects.values()} == {Severity.OK}
    assert list(subjects) == [
        "LIBVIRT_URI",
        "LIBVIRT_ACCELERATION",
        "LIBVIRT_POOL",
        "LIBVIRT_NET",
        "LIBVIRT_VOL_NAME",
        "LIBVIRT_LAUNCH_SECURITY",
        "LIBVIRT_MEMORY",
        "LIBVIRT_EFI_FIRMWARE",
    ]


@pytest.mark.parametrize(
    ("host", "site", "subject", "severity", "words"),
    [
        ({"known": replace(FACTS, kind="qemu")}, {}, "LIBVIRT_ACCELERATION", "warning", "emulates the CPU"),
        ({"room": 1 << 20}, {}, "LIBVIRT_POOL", "warning", "0.0 GiB free"),
        ({"errors": {"pool": Misconfigured("not active")}}, {}, "LIBVIRT_POOL", "error", "not active"),
        ({"dhcp": False}, {}, "LIBVIRT_NET", "error", "hands out no addresses"),
        ({"dhcp": None}, {}, "LIBVIRT_NET", "warning", "does not manage"),
        ({"errors": {"network": Misconfigured("no network")}}, {}, "LIBVIRT_NET", "error", "no network"),
        ({"errors": {"volume": InvalidRequest("no volume")}}, {}, "LIBVIRT_VOL_NAME", "error", "no volume"),
        ({}, {"launch": "tdx"}, "LIBVIRT_LAUNCH_SECURITY", "error", "LIBVIRT_LAUNCH_SECURITY is tdx"),
        (
            {"known": replace(FACTS, launch=frozenset())},
            {"confidential": True},
            "LIBVIRT_LAUNCH_SECURITY",
            "error",
            "DISABLECVM is false",
        ),
        (
            {"known": replace(FACTS, launch=None)},
            {"launch": "sev"},
            "LIBVIRT_LAUNCH_SECURITY",
            "warning",
            "does not say whether it has sev",
        ),
        ({}, {"memory_mib": 1 << 20}, "LIBVIRT_MEMORY", "error", "the host has 65536 in all"),
        ({}, {"vcpus": 65}, "LIBVIRT_CPU", "error", "the host allows 64"),
        ({"known": replace(FACTS, cpus=4)}, {"cpuset": "0-1,4"}, "LIBVIRT_CPUSET", "warning", "has 4 CPUs"),
        ({"free": 1000}, {}, "LIBVIRT_MEMORY", "warning", "1000 MiB are free"),
        ({"known": replace(FACTS, uefi=False)}, {}, "LIBVIRT_EFI_FIRMWARE", "error", "finds no UEFI firmware"),
        ({}, {"firmware": "/f.fd"}, "LIBVIRT_EFI_FIRMWARE", "warning", "does not list /f.fd"),
        (
            {"known": replace(FACTS, secure_boot=False)},
            {"secure_boot": True},
            "LIBVIRT_SECURE_BOOT",
            "error",
            "no firmware for it",
        ),
        ({"known": replace(FACTS, tpm=False)}, {"tpm": True}, "LIBVIRT_TPM", "error", "emulates no TPM"),
        ({"known": replace(FACTS, arch="s390x")}, {"tpm": True}, "LIBVIRT_TPM", "error", "emulates no TPM"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(
    host: dict[str, Any], site: dict[str, Any], subject: str, severity: str, words: str
) -> None:
    finding = found(Host(**host), replace(SITE, **site))[subject]
    assert finding.severity == severity
    assert words in finding.detail


@pytest.mark.parametrize(
    ("host", "site", "subject", "words"),
    [
        ({"free": None}, {}, "LIBVIRT_MEMORY", "? MiB free"),
        ({"free": 1000}, {"overcommit": True}, "LIBVIRT_MEMORY", "1000 MiB free"),
        ({}, {"launch": "sev-snp"}, "LIBVIRT_LAUNCH_SECURITY", "sev-snp"),
        ({}, {"confidential": True}, "LIBVIRT_LAUNCH_SECURITY", "sev-snp"),
        ({}, {"firmware": "none"}, "LIBVIRT_EFI_FIRMWARE", "no UEFI"),
        ({}, {"volume": "", "kernel": "/vmlinux"}, "LIBVIRT_KERNEL", "direct boot of /vmlinux"),
    ],
)
def test_what_is_well(host: dict[str, Any], site: dict[str, Any], subject: str, words: str) -> None:
    finding = found(Host(**host), replace(SITE, **site))[subject]
    assert finding.severity is Severity.OK
    assert words in finding.detail


def test_without_a_connection_there_is_one_finding() -> None:
    subjects = found(Host(errors={"facts": ConnectionLost("no route to host")}))
    assert {name: one.severity for name, one in subjects.items()} == {"LIBVIRT_URI": Severity.ERROR}


def test_a_connection_that_is_lost_meanwhile_is_no_fault_of_the_pool() -> None:
    made: Any = Host(errors={"pool": ConnectionLost("gone")})
    wrong = [one for one in checks.findings(made, SITE) if one.severity is Severity.ERROR]
    assert [one.subject for one in wrong] == ["LIBVIRT_URI"]
