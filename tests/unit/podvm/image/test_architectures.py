"""Images of other architectures: emulators, CPython's files, what a machine without UEFI is booted with."""

import json
import struct
from pathlib import Path
from typing import cast

import pytest

from caa.errors import ConfigError
from podvm.image import direct, emulate, foreign, recipe
from podvm.image.foreign import Files
from podvm.image.workshop import Workshop

# ELF's e_machine as <elf.h> has it, and whether the most significant byte comes first.
MACHINES = {"amd64": (62, False), "arm64": (183, False), "s390x": (22, True), "ppc64le": (21, False)}


def elf(machine: int, *, big: bool) -> bytes:
    """The first 20 bytes of a program of 64 bit."""
    order = ">" if big else "<"
    return b"\x7fELF" + bytes([2, 2 if big else 1, 1, 0]) + bytes(8) + struct.pack(f"{order}HH", 2, machine)


def taken(registration: str, head: bytes) -> bool:
    """What the kernel does with a line: compare under the mask."""
    _, _, _, _, magic, mask, _, _ = registration.split(":")
    wanted, bits = (text.encode().decode("unicode_escape").encode("latin-1") for text in (magic, mask))
    return len(head) >= len(wanted) and all(
        got & bit == want & bit for got, want, bit in zip(head, wanted, bits, strict=False)
    )


@pytest.mark.parametrize("architecture", MACHINES)
def test_an_emulator_takes_the_programs_of_its_architecture_alone(architecture: str) -> None:
    line = emulate.registration(architecture)
    for name, (machine, big) in MACHINES.items():
        assert taken(line, elf(machine, big=big)) == (name == architecture)
    assert line.split(":")[-2:] == [emulate.program(architecture), "FPC"]


def test_every_architecture_can_be_emulated_and_has_names() -> None:
    for architecture, _ in recipe.ARCHITECTURES:
        assert emulate.program(architecture).startswith("/usr/bin/qemu-")
        assert foreign.triplet(architecture).endswith("-linux-gnu")


def test_a_library_is_that_of_the_other_architecture(tmp_path: Path) -> None:
    files = Files(tmp_path, "x86_64-linux-gnu", "aarch64-linux-gnu")
    there = tmp_path / "usr/lib/python3.13/lib-dynload/_ssl.cpython-313-aarch64-linux-gnu.so"
    there.parent.mkdir(parents=True)
    there.touch()
    assert files.of(Path("/usr/lib/python3.13/lib-dynload/_ssl.cpython-313-x86_64-linux-gnu.so")) == there
    assert files.of(Path("/out/python/structlog/dev.py")) == Path("/out/python/structlog/dev.py")
    with pytest.raises(ConfigError, match="is not there for aarch64-linux-gnu: its package has to be fetched"):
        files.of(Path("/usr/lib/python3/dist-packages/x.cpython-313-x86_64-linux-gnu.so"))


class Shop:
    """A build tree that answers."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def run(self, command: list[str], _what: str) -> str:
        self.calls.append(command)
        listing = "python3.13-minimal 3.13.5-2 amd64\npython3-yaml 6.0.2-1+b2 amd64\n"
        return "python3.13\n" if command[0] == "python3" else listing


def test_cpython_is_in_the_list_of_what_an_image_holds() -> None:
    shop = cast("Workshop", tree := Shop())
    row = {"type": "deb", "name": "python3.13-minimal", "version": "3.13.5-2", "architecture": "amd64"}
    assert foreign.installed(shop)[0] == row
    assert foreign.fetch(shop, "/out/foreign", architecture="ppc64le")[0] == row
    assert tree.calls[-1][4:7] == ["ppc64el", "/out/foreign", "python3.13-minimal"]


def table(*rows: tuple[str, str]) -> str:
    return json.dumps({"partitiontable": {"partitions": [{"name": name, "uuid": uuid} for name, uuid in rows]}})


def test_the_root_hash_is_in_the_partitions_ids() -> None:
    """The ids of an image that was built here, and the hash that its UKI names."""
    found = direct.root_hash(
        table(
            ("root-s390x", "D9D9B2FD-BE7F-2607-1BBD-71407FA6990B"),
            ("root-s390x-verity", "0C767F15-B3A0-AFD6-D581-703A375C8DE9"),
        )
    )
    assert found == "d9d9b2fdbe7f26071bbd71407fa6990b0c767f15b3a0afd6d581703a375c8de9"


def test_a_disk_without_hashes_is_refused() -> None:
    with pytest.raises(ConfigError, match="no root partition with hashes"):
        direct.root_hash(table(("root-s390x", "D9D9B2FD-BE7F-2607-1BBD-71407FA6990B"), ("esp", "x")))
