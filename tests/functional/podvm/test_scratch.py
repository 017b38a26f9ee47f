"""The commands of the scratch space with the real cryptsetup: everything but the mapping, which needs dm-crypt."""

import os
import subprocess
from pathlib import Path

import pytest

from caa.errors import StateError
from podvm import scratch

pytestmark = [pytest.mark.needs("cryptsetup"), pytest.mark.needs("mkfs.ext4")]
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(200 * MIB)
    return tmp_path / "disk"


def dump(header: Path) -> str:
    command = ["/usr/sbin/cryptsetup", "luksDump", str(header)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_header_is_beside_the_disk(disk: Path, tmp_path: Path) -> None:
    header, key = tmp_path / "header", os.urandom(64)
    scratch._run(scratch.format_command(disk, header, integrity=False), key)
    text = dump(header)
    assert "Version:       \t2" in text
    assert "cipher: aes-xts-plain64" in text
    assert "sector: 4096" in text
    assert "Key:        512 bits" in text
    assert oct(header.stat().st_mode & 0o777) == "0o600"
    assert not disk.read_bytes().strip(b"\0")


def test_the_key_opens_it_and_no_other_does(disk: Path, tmp_path: Path) -> None:
    header, key = tmp_path / "header", os.urandom(64)
    scratch._run(scratch.format_command(disk, header, integrity=False), key)
    test = [word if word != scratch.NAME else "--test-passphrase" for word in scratch.open_command(disk, header)]
    scratch._run(test, key)
    with pytest.raises(StateError, match="cryptsetup open failed: No key available"):
        scratch._run(test, os.urandom(64))


def test_the_options_of_integrity_are_known(disk: Path, tmp_path: Path) -> None:
    """Formatting with integrity needs the device mapper; without one the error says what the kernel lacks."""
    command = scratch.format_command(disk, tmp_path / "header", integrity=True)
    if "device-mapper" in Path("/proc/misc").read_text():
        scratch._run(command, os.urandom(64))
        assert "integrity: hmac(sha256)" in dump(tmp_path / "header")
        return
    with pytest.raises(StateError, match=r"device-mapper.*the image's kernel needs dm-crypt"):
        scratch._run(command, os.urandom(64))


def test_the_file_system_fits_what_was_written_before(tmp_path: Path) -> None:
    """Every superblock that mkfs writes is in a block that `zeros` names."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(1500 * MIB)
    scratch._run(scratch.mkfs_command(disk), b"")
    shown = subprocess.run(["/usr/sbin/dumpe2fs", disk], capture_output=True, text=True, check=True).stdout
    copies = [
        int(line.split(" superblock at ")[1].split(",")[0]) for line in shown.splitlines() if " superblock" in line
    ]
    assert len(copies) > 4
    written = list(scratch.zeros(1500 * MIB))
    assert all(any(at <= block * 4096 < at + length for at, length in written) for block in copies)
    assert "has_journal" not in shown


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_PATHS", "/nonexistent")
    with pytest.raises(StateError, match="the image has no program cryptsetup"):
        scratch._run(["cryptsetup", "close"], b"")
