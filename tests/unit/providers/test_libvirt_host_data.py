"""What a confidential domain says about its guest's initdata: SEV-SNP's HOST_DATA and TDX's MRCONFIGID."""

import base64
import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from caa.errors import InvalidRequest
from caa.model.ids import SandboxId
from caa.model.instance import InitdataDigest
from caa.provider.contract import LaunchRequest, Owner
from providers.libvirt import domain, translate
from providers.libvirt.facts import Facts, PoolFacts, VolumeFacts
from providers.libvirt.translate import Site

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden"
SCHEMA = Path(__file__).resolve().parents[2] / "data" / "libvirt" / "launch-security.rng"
SITE = Site(pool="default", network="default", volume="podvm.qcow2", vcpus=2, memory_mib=2048)
TEXT = b'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n'
FIELDS = {"sev-snp": ("hostData", 32), "tdx": ("mrConfigId", 48)}
SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}


def digest(algorithm: str) -> InitdataDigest:
    return InitdataDigest(algorithm=algorithm, value=hashlib.new(algorithm, TEXT).digest())


def document(launch: str, initdata: InitdataDigest | None, **changes: object) -> str:
    request = LaunchRequest(
        name="podvm-web-0a1b2c3d",
        sandbox=SandboxId("sandbox-1"),
        owner=Owner(cluster="c", node="n"),
        token="t",
        user_data=b"secret",
        initdata=initdata,
    )
    site = replace(SITE, launch=launch, **changes)
    plan = translate.plan(site, request, uuid="9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e", now=1.5)
    host = Facts(
        arch="s390x" if launch == "s390-pv" else "x86_64",
        kind="kvm",
        launch=frozenset({"sev", "sev-snp", "tdx", "s390-pv"}),
        sev=(51, 1),
    )
    pool = PoolFacts(kind="dir", path="/var/lib/libvirt/images", available=1 << 40)
    image = VolumeFacts(path="/var/lib/libvirt/images/podvm.qcow2", format="qcow2", capacity=3 << 30)
    return domain.domain(site, plan, parts=domain.Parts(facts=host, pool=pool, image=image))


def written(launch: str, initdata: InitdataDigest | None) -> bytes | None:
    tag, _ = FIELDS[launch]
    text = ElementTree.fromstring(document(launch, initdata)).findtext(f"launchSecurity/{tag}")
    return None if text is None else base64.b64decode(text, validate=True)


@pytest.mark.parametrize("launch", FIELDS)
@pytest.mark.parametrize("algorithm", SIZES)
def test_the_digest_fills_the_field(launch: str, algorithm: str) -> None:
    """Zeros behind a short one, the end of a long one cut off: what a verifier compares with (podvm.md 2.3)."""
    _, size = FIELDS[launch]
    full = digest(algorithm).value
    assert written(launch, digest(algorithm)) == (full + bytes(size))[:size]


@pytest.mark.parametrize("launch", FIELDS)
@pytest.mark.parametrize("algorithm", SIZES)
@pytest.mark.parametrize("changes", [{}, {"kernel": "/boot/vmlinux", "cmdline": "quiet"}], ids=["image", "kernel"])
@pytest.mark.needs("xmllint", "/usr/share/libvirt/schemas/domain.rng")
def test_the_whole_document_is_valid(launch: str, algorithm: str, changes: dict[str, object], tmp_path: Path) -> None:
    assert refusal(document(launch, digest(algorithm), **changes), tmp_path) == ""


@pytest.mark.parametrize(
    ("launch", "old", "new"),
    [
        ("sev-snp", "hostData", "hostdata"),
        ("tdx", "mrConfigId", "mrconfigid"),
        ("tdx", "</mrConfigId>", "AA</mrConfigId>"),
    ],
)
@pytest.mark.needs("xmllint", "/usr/share/libvirt/schemas/domain.rng")
def test_the_schema_of_the_test_refuses_what_libvirt_would(launch: str, old: str, new: str, tmp_path: Path) -> None:
    assert "fails to validate" in refusal(document(launch, digest("sha256")).replace(old, new), tmp_path)


def refusal(text: str, folder: Path) -> str:
    """What xmllint says against the document, "" when nothing."""
    file = folder / "domain.xml"
    file.write_text(text)
    command = ["xmllint", "--noout", "--relaxng", str(SCHEMA), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("launch", FIELDS)
def test_golden(launch: str) -> None:
    """The document as people review it, for initdata with sha384."""
    root = ElementTree.fromstring(document(launch, digest("sha384"), firmware="/usr/share/OVMF/OVMF.fd"))
    ElementTree.indent(root)
    path = GOLDEN / f"libvirt-{launch}.xml"
    text = ElementTree.tostring(root, encoding="unicode") + "\n"
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"{path} was written: review it, commit it, run again")
    assert text == path.read_text()


@pytest.mark.parametrize("launch", FIELDS)
def test_without_a_digest_there_is_no_field(launch: str) -> None:
    assert written(launch, None) is None


@pytest.mark.parametrize("launch", ["", "sev", "s390-pv"])
def test_kinds_without_such_a_field(launch: str) -> None:
    """An ordinary VM has no such evidence; SEV's and Secure Execution's has no room for it."""
    text = document(launch, digest("sha256"))
    assert "hostData" not in text
    assert "mrConfigId" not in text


@pytest.mark.parametrize("launch", FIELDS)
@pytest.mark.parametrize(
    "wrong",
    [
        InitdataDigest(algorithm="sha256", value=b"short"),
        InitdataDigest(algorithm="sha256", value=bytes(48)),
        InitdataDigest(algorithm="sha384", value=b""),
        InitdataDigest(algorithm="md5", value=bytes(16)),
    ],
)
def test_what_is_no_digest_is_refused(launch: str, wrong: InitdataDigest) -> None:
    with pytest.raises(InvalidRequest, match=f"with {len(wrong.value)} bytes is none: {launch} takes a sha256"):
        document(launch, wrong)
