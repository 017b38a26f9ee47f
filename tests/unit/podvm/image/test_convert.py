"""Formats that need no other program: whole MiB, the archive of one disk."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import cli, convert


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    file = tmp_path / "podvm.raw"
    file.write_bytes(b"disk" * 1000)
    return file


def test_raw_is_padded_to_whole_mib(raw: Path) -> None:
    made = convert.convert(raw, "raw")
    assert made.name == "podvm.whole.raw"
    assert made.stat().st_size == 1 << 20
    assert made.read_bytes()[: 4 * 1000] == raw.read_bytes()


def test_the_archive_holds_one_disk_of_whole_gib(raw: Path) -> None:
    made = convert.convert(raw, "tar")
    with tarfile.open(fileobj=io.BufferedReader(gzip.open(made))) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.mtime) == ("disk.raw", 1 << 30, 0)
        content = archive.extractfile(member)
        assert content is not None
        assert content.read(4000) == raw.read_bytes()


def test_a_wrong_format_is_named(raw: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'iso': qcow2, raw, vhd, tar"):
        convert.convert(raw, "iso")


@pytest.mark.parametrize("form", ["tar", "raw"])
def test_a_full_disk_leaves_no_half_image(raw: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    suffix, write = convert.FORMS[form]

    def full(image: Path, to: Path) -> None:
        write(image, to)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "FORMS", {form: (suffix, full)})
    with pytest.raises(OSError, match="No space"):
        convert.convert(raw, form)
    assert list(raw.parent.iterdir()) == [raw]


def test_ctrl_c_ends_in_a_line(raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_image: Path, to: Path) -> None:
        to.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "FORMS", {"raw": (".whole.raw", interrupted)})
    assert cli.main(["convert", str(raw), "--format", "raw"]) == 130
    assert capsys.readouterr().err == "image: interrupted\n"
    assert list(raw.parent.iterdir()) == [raw]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no image"):
        convert.convert(tmp_path / "none.raw", "raw")


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("form", ["vhd", "qcow2"])
def test_twice_the_same_bytes(raw: Path, tmp_path: Path, form: str) -> None:
    first = convert.convert(raw, form, to=tmp_path / "one")
    second = convert.convert(raw, form, to=tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.needs("qemu-img")
def test_a_vhd_is_fixed_and_of_whole_mib(raw: Path) -> None:
    made = convert.convert(raw, "vhd").read_bytes()
    footer = made[-512:]
    assert len(made) == (1 << 20) + 512
    assert footer[:8] == b"conectix"
    assert int.from_bytes(footer[60:64], "big") == 2  # fixed
    assert int.from_bytes(footer[48:56], "big") == 1 << 20
    checked = footer[:64] + bytes(4) + footer[68:]
    assert int.from_bytes(footer[64:68], "big") == ~sum(checked) & 0xFFFFFFFF
