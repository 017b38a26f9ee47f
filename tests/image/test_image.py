"""The image as mkosi builds it: the same bytes twice, booted with firmware and a TPM, changed and booted again."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from caa.attest import pcr, pe
from caa.testing.qemu import SERVING, Machine, Rack
from caa.userdata import initdata
from podvm.image import customize, recipe

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.needs(
        "debootstrap", "unshare", "qemu-system-x86_64", "swtpm", "genisoimage", "/usr/share/OVMF/OVMF_CODE_4M.fd"
    ),
]
CACHE = Path(recipe.__file__).resolve().parents[2] / ".cache" / "image"
PCR = re.compile(r"/pcr-sha256/(\d+):([0-9A-F]{64})")
INITDATA = 'algorithm = "sha384"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = "url = 1"\n'
BUDGET = 12 << 20  # bytes of CPython and our code


def measured(machine: Machine) -> dict[str, str]:
    """The PCRs that the guest printed."""
    machine.wait_for("/pcr-sha256/11:", within=600)
    return {number: value.lower() for number, value in PCR.findall(machine.console())}


def expected(built: Any) -> dict[str, str]:
    values: dict[str, str] = json.loads(built.file("pcrs.json").read_text())["sha256"]
    return values


def test_two_builds_are_the_same_bytes(built: Any, tmp_path: Path) -> None:
    recipe.build(recipe.Wish(), CACHE, to=tmp_path)
    first, second = (folder / built.file("SHA256SUMS").name for folder in (built.folder, tmp_path))
    assert second.read_text() == first.read_text()


def test_the_papers_agree_with_the_image(built: Any) -> None:
    lines = [line.split("  ") for line in built.file("SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} >= {built.file(suffix).name for suffix in ("raw", "efi", "cdx.json")}
    for digest, name in lines:
        assert hashlib.sha256((built.folder / name).read_bytes()).hexdigest() == digest
    manifest = json.loads(built.file("manifest.json").read_text())
    bill = json.loads(built.file("cdx.json").read_text())
    names = {one["name"] for one in manifest["packages"]}
    assert {"systemd", "nftables", "e2fsprogs"} <= names
    assert names <= {one["name"] for one in bill["components"]}
    assert manifest["test"] is True
    release = pe.parse(built.file("efi").read_bytes()).section(".osrel") or b""
    assert b'VARIANT="production, with the stand-in agent, for tests only"' in release


def test_an_image_without_the_stand_in_keeps_within_its_budget(built: Any, tmp_path: Path) -> None:
    """CPython, its library and our code, before compression and without the stand-in agent."""
    sizes = recipe.guest_sizes(CACHE, tmp_path)
    assert sum(sizes.values()) <= BUDGET


def test_it_boots_measured_and_its_agent_answers(built: Any, rack: Rack) -> None:
    machine = rack.start_disk(built.file("raw"), rack.drive(initdata=INITDATA))
    assert machine.check(within=600) == SERVING
    values = expected(built) | {"8": pcr.initdata(initdata.parse(INITDATA).digest).hex()}
    assert measured(machine) == values
    assert "user data from configdrive" in machine.console()
    assert "login:" not in machine.console()


def test_a_changed_image_boots_as_it_was_predicted(built: Any, rack: Rack, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("hello")
    changes = customize.Changes(files=((tmp_path / "note", "/etc/note"),), arguments=("podvm.note=1",))
    target = tmp_path / "changed.raw"
    customize.customize(built.file("raw"), changes, cache=CACHE, to=target)
    values = json.loads(target.with_name("changed.pcrs.json").read_text())["sha256"]
    assert values["11"] != expected(built)["11"]
    machine = rack.start_disk(target, rack.drive())
    assert machine.check(within=600) == SERVING
    assert measured(machine) == values
