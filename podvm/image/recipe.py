"""The pod VM image from mkosi's recipe: what is built, with which inputs, and the papers that go with it."""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa.attest import pcr, pe
from caa.errors import ConfigError
from caa.userdata import initdata
from podvm.image import bill, direct, foreign, inputs, interpreter, workshop
from podvm.image.cache import locked
from podvm.image.inputs import Input
from podvm.image.sign import SIGNING, Signer
from podvm.image.workshop import Workshop
from podvm.measure import Presence

_CODE = Path(__file__).parents[2]
PROFILES = ("production", "debug", "byom")
ARCHITECTURES = {"amd64": "x86-64", "arm64": "arm64", "s390x": "s390x", "ppc64le": "ppc64-le"}.items()
WITH_UEFI = ("amd64", "arm64")
_STAND_IN_PACKAGES = ("google", "structlog")
_TPM = """# What this image says about its TPM.
[Service]
Environment="PROCESS_USER_DATA_OPTIONS=-tpm {}"
"""
_UNITS = "usr/lib/systemd/system"
_NO_HUB = """# There is no data hub in this image: the agent waits for initdata alone.
[Path]
PathExists=
PathExists=/run/peerpod/initdata.digest
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to build. `key_file` holds the public keys that may log in: debug by ssh, byom by SFTP, nobody elsewhere.

    `tpm` is what process-user-data is told: "" is `required` for confidential VMs where those have one, else `auto`.
    """

    profile: str = "production"
    architecture: str = "amd64"
    closed_policy: bool = False
    confidential: bool = False
    tpm: str = ""
    key_file: Path | None = None
    signer: Signer | None = None
    rows: tuple[Input, ...] = ()
    mirror: str = ""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for what cannot be."""
        if self.profile not in PROFILES:
            raise ConfigError(f"there is no profile {self.profile!r}: {', '.join(PROFILES)}")
        if self.architecture not in dict(ARCHITECTURES):
            raise ConfigError(f"there is no architecture {self.architecture!r}: {', '.join(dict(ARCHITECTURES))}")
        if self.tpm not in ("", *Presence):
            raise ConfigError(f"--tpm {self.tpm}: known are {', '.join(Presence)}")
        if self.key_file is not None and self.profile == "production":
            raise ConfigError("a production image lets nobody in: an authorized key needs --profile debug or byom")
        if self.key_file is None and self.profile == "byom":
            raise ConfigError("the profile byom needs --authorized-key: user data arrives by SFTP with that key")
        if self.signer is not None and self.architecture not in WITH_UEFI:
            raise ConfigError(f"{self.architecture} has no UEFI, nothing is signed for Secure Boot there")

    @property
    def is_test(self) -> bool:
        """Without the Kata agent it is a test image."""
        return all(row.name != inputs.AGENT for row in inputs.chosen(self.rows, self.architecture))

    @property
    def name(self) -> str:
        """The files' name: `podvm-production-amd64`, with `-confidential` and, for a test image, `-test`."""
        words = ["podvm", self.profile, *(["confidential"] if self.confidential else []), self.architecture]
        return "-".join([*words, *(["test"] if self.is_test else [])])

    @property
    def presence(self) -> str:
        """What the image says about its TPM, as process-user-data's `-tpm`."""
        required = self.confidential and self.architecture in WITH_UEFI
        return self.tpm or (Presence.REQUIRED if required else Presence.AUTO).value


def build(wish: Wish, cache: Path, *, to: Path) -> list[Path]:
    """Build the image and its papers below `to`, and return them. Raises `ConfigError`, `Unavailable`."""
    with locked(cache):
        return _build(wish, cache, to=to)


def _build(wish: Wish, cache: Path, *, to: Path) -> list[Path]:
    work = cache / "work" / wish.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (cache / "packages").mkdir(exist_ok=True)
    try:
        if wish.signer is not None:
            wish.signer.copy(work / "keys")  # first: a wrong key is told before minutes of work
        made = _made(wish, cache, work=work, to=to)
    finally:
        shutil.rmtree(work / "keys", ignore_errors=True)
    shutil.rmtree(work)  # after a failure it stays, with mkosi's log
    return made


def _made(wish: Wish, cache: Path, *, work: Path, to: Path) -> list[Path]:
    binds = {"/code": _CODE, "/out": work, "/packages": cache / "packages"}
    shop = workshop.opened(cache, binds, mirror=wish.mirror, architecture=wish.architecture)
    about = _guest(shop, wish, work=work)
    _extras(wish, work / "extra", cache=cache)
    _sources(shop, work / "sandbox")
    (work / "result").mkdir()
    (work / "workspace").mkdir()
    sys.stderr.write(f"image: mkosi builds {wish.name}, which takes minutes\n")
    shop.run(command(wish), f"build {wish.name}", log=work / "log")
    if wish.architecture not in WITH_UEFI:
        _write(work / "result/podvm.cmdline", direct.command_line(shop, command(wish)))
    return _papers(wish, work / "result", about=about, to=to)


def guest_sizes(cache: Path, work: Path) -> dict[str, int]:
    """The bytes of CPython and of our code in an image with the Kata agent."""
    agent = Input(name=inputs.AGENT, source="path:", sha256="0" * 64)
    return _guest(workshop.opened(cache, {"/code": _CODE, "/out": work}), Wish(rows=(agent,)), work=work).sizes


def command(wish: Wish) -> list[str]:
    """The command line of mkosi, for paths as the build tree sees them."""
    further = {"closed-policy": wish.closed_policy, "confidential": wish.confidential}
    profiles = [wish.profile, *(name for name, wanted in further.items() if wanted)]
    variant = f"{wish.profile}-test" if wish.is_test else wish.profile
    packages = ["runc", "busybox-static"] if wish.is_test else []
    return [
        "mkosi", "--directory=/code/podvm/image/mkosi", *(f"--profile={one}" for one in profiles),
        f"--architecture={dict(ARCHITECTURES)[wish.architecture]}", "--output-directory=/out/result",
        "--workspace-directory=/out/workspace", "--package-cache-dir=/packages", "--sandbox-tree=/out/sandbox",
        "--extra-tree=/out/guest", "--extra-tree=/out/extra", *(f"--package={one}" for one in packages),
        f"--environment=PODVM_VARIANT_ID={variant}", *(SIGNING if wish.signer is not None else ()), "--force", "build",
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Guest:
    """CPython and our code in the image: their bytes, and the packages where CPython and its modules are from."""

    sizes: dict[str, int]
    packages: list[foreign.Package]


def _guest(shop: Workshop, wish: Wish, *, work: Path) -> _Guest:
    (work / "python").mkdir()
    call = ["python3", "-m", "podvm.image.guest", "/out/guest", "--packages=/out/python"]
    # An extension module of another architecture would be of no use, and protobuf has its work in Python too.
    left_out = shutil.ignore_patterns("__pycache__", *(["_upb"] if shop.foreign else []))
    if wish.is_test:
        call.append("--stand-in")
        for name in _STAND_IN_PACKAGES:
            shutil.copytree(_package(name), work / "python" / name, ignore=left_out)
    packages = foreign.installed(shop) if not shop.foreign else []
    if shop.foreign:
        packages = foreign.fetch(shop, "/out/foreign", architecture=wish.architecture)
        call += ["--foreign", "/out/foreign", foreign.triplet(wish.architecture)]
    python, ours = shop.run(call, "gather CPython for the guest").split()
    return _Guest({"python": int(python), "ours": int(ours)}, packages)


def _package(name: str) -> Path:
    for folder in interpreter.own().packages:
        if (folder / name).is_dir():
            return folder / name
    raise ConfigError(f"the Python package {name} of the stand-in agent is missing: run make setup")


def _extras(wish: Wish, to: Path, *, cache: Path) -> None:
    rows = inputs.chosen(wish.rows, wish.architecture)
    (to / "usr/local/bin").mkdir(parents=True)
    for row in rows:
        inputs.place(row, inputs.fetch(row, cache / "inputs"), to=to)
    if all(row.name != inputs.HUB for row in rows):
        _write(to / _UNITS / "kata-agent.path.d/10-no-data-hub.conf", _NO_HUB)
    _write(to / _UNITS / "process-user-data.service.d/20-tpm.conf", _TPM.format(wish.presence))
    if wish.key_file is not None:
        place = "root/.ssh/authorized_keys" if wish.profile == "debug" else "etc/ssh/authorized_keys"
        _write(to / place, wish.key_file.read_text())


def _sources(shop: Workshop, to: Path) -> None:
    """The repositories of the image; mkosi's own list asks for debug symbols, which many mirrors do not have."""
    places = ((shop.mirror, f"{workshop.RELEASE} {workshop.RELEASE}-updates"),
              (f"{shop.mirror.rstrip('/')}-security", f"{workshop.RELEASE}-security"))  # fmt: skip
    texts = [
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        for uri, suites in places
    ]
    _write(to / "etc/apt/sources.list.d/mkosi.sources", "\n".join(texts))


def _papers(wish: Wish, result: Path, *, about: _Guest, to: Path) -> list[Path]:
    """Move what was made to its place: image, UKI, manifest, bill of materials, measurements, sums."""
    to.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((result / "podvm.manifest").read_text())
    rows = inputs.chosen(wish.rows, wish.architecture)
    manifest |= {"inputs": [[row.name, row.source, row.sha256] for row in rows], "test": wish.is_test}
    manifest |= {"bytes": about.sizes, "confidential": wish.confidential, "tpm": wish.presence}
    manifest["packages"] = [*manifest["packages"], *about.packages]
    made = [_put(to / f"{wish.name}.manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")]
    made.append(_put(to / f"{wish.name}.cdx.json", bill.document(manifest, rows, image=wish.name, version=_version())))
    uki = result / "podvm.efi"
    if uki.exists():
        made.append(_put(to / f"{wish.name}.pcrs.json", measurements(uki.read_bytes())))
    for suffix in ("raw", "efi", "vmlinuz", "initrd", "cmdline"):
        if (result / f"podvm.{suffix}").exists():
            made.append((result / f"podvm.{suffix}").replace(to / f"{wish.name}.{suffix}"))
    made.append(_put(to / f"{wish.name}.SHA256SUMS", sums(made)))
    return made


def measurements(uki: bytes) -> bytes:
    """The expected PCR values as JSON; PCR 8 is that of a pod without initdata, 4 of a signed UKI under Secure Boot.

    12 and 13 hold what a host may add to a UKI by files beside it or by SMBIOS strings (`systemd-stub(7)`): nothing.
    """
    dummy = initdata.parse(initdata.DUMMY).digest
    signed = pe.parse(uki).is_signed
    values: dict[str, Any] = {
        "4": pcr.boot(uki, secure_boot=signed),
        "8": pcr.initdata(dummy),
        "11": pcr.unified_kernel(uki),
        "12": pcr.ZERO,
        "13": pcr.ZERO,
    }
    return json.dumps({"sha256": {number: value.hex() for number, value in values.items()}}, indent=2).encode() + b"\n"


def sums(files: Sequence[Path]) -> bytes:
    """The lines of `sha256sum`."""
    lines = []
    for file in sorted(files):
        with file.open("rb") as opened:
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n")
    return "".join(lines).encode()


def _put(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _version() -> str:
    text = (_CODE / "caa" / "__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]
