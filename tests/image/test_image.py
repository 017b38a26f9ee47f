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
from podvm.image import cli, recipe

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
# The stand-in agent once more, which tells on the console what it finds.
AGENT = """#!/usr/bin/python3 -IS
import asyncio, os
from caa.testing.agent.daemon import run
from caa.testing.agent.options import parse
read = lambda path: open(path).read().strip()
argument = "podvm.note=1" in read("/proc/cmdline").split()
print(f"the agent of the test, keys: {read('/root/.ssh/authorized_keys')}, note: {read('/etc/note')}, "
      f"argument: {argument}", flush=True)
asyncio.run(run(parse(["--server-addr", "unix:///run/kata-agent/agent.sock"])))
"""
BUDGET = 12 << 20  # bytes of CPython and our code


def measured(machine: Machine) -> dict[str, str]:
    """The PCRs that the guest printed."""
    machine.wait_for("/pcr-sha256/13:", within=600)
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
    assert {"systemd", "nftables", "e2fsprogs", "python3-yaml"} <= names
    assert [name for name in names if re.fullmatch(r"python3\.\d+-minimal", name)]
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


@pytest.mark.needs("osslsigncode", "/usr/share/OVMF/OVMF_CODE_4M.snakeoil.fd")
def test_a_changed_image_boots_as_it_was_predicted(debug: Any, rack: Rack, tmp_path: Path) -> None:
    """A confidential debug image, signed again, under Secure Boot: every kind of change, scratch space unasked."""
    target = customized(debug, tmp_path)
    values = json.loads(target.with_name("changed.pcrs.json").read_text())["sha256"]
    assert {number for number in values if values[number] != expected(debug)[number]} == {"4", "11"}
    machine = rack.start_disk(target, rack.drive(), room=512 << 20, secure_boot=True)
    assert machine.check(within=900) == SERVING
    assert measured(machine) == values
    console = machine.console()
    assert "the agent of the test, keys: ssh-ed25519 AAAAchanged, note: hello, argument: True" in console
    assert "images are unpacked on /dev/vda4" in console
    assert "encrypted with a key of this boot" in console


def customized(debug: Any, tmp_path: Path) -> Path:
    """The image with a file, an argument, a key and an agent of the test's own."""
    agent = tmp_path / "agent"
    agent.write_text(AGENT)
    (tmp_path / "note").write_text("hello")
    (tmp_path / "id.pub").write_text("ssh-ed25519 AAAAchanged\n")
    words = [
        "--add-file", f"{tmp_path}/note:/etc/note", "--set-kernel-arg", "podvm.note=1",
        "--authorized-key", f"{tmp_path}/id.pub", "--agent", str(agent), "--output", str(tmp_path / "changed.raw"),
        "--secure-boot-key", str(debug.wish.signer.key),
        "--secure-boot-certificate", str(debug.wish.signer.certificate),
    ]  # fmt: skip
    assert cli.main(["customize", str(debug.file("raw")), *words]) == 0
    return tmp_path / "changed.raw"


def test_an_unsigned_image_does_not_start_under_secure_boot(built: Any, rack: Rack) -> None:
    machine = rack.start_disk(built.file("raw"), rack.drive(), secure_boot=True)
    machine.wait_for("Access Denied", within=300)
    assert "podvm:" not in machine.console()


@pytest.mark.parametrize(
    ("which", "words", "reason"),
    [
        ("built", ["--authorized-key", "KEY"], "only a debug image lets anybody in"),
        ("debug", [], "this image is signed for Secure Boot: give --secure-boot-key"),
    ],
)
def test_a_change_that_would_open_or_unsign_an_image_is_refused(
    which: str, words: list[str], reason: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    image = request.getfixturevalue(which)
    key = image.folder / "id.pub"
    key.write_text("ssh-ed25519 AAAA\n")
    target = image.folder / "refused.raw"
    words = [str(key) if word == "KEY" else word for word in words]
    assert cli.main(["customize", str(image.file("raw")), *words, "--output", str(target)]) == 1
    assert reason in capsys.readouterr().err
    assert not target.exists()
