"""inputs.example.toml from its text to the files in the image; what stands for the programs is made here."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import inputs, recipe
from podvm.image.recipe import Wish

EXAMPLE = Path(inputs.__file__).with_name("inputs.example.toml")


def program(name: str) -> bytes:
    return f"#!{name}\n".encode()


def archive(member: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(member)
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def artefact(reference: str) -> dict[str, bytes]:
    """The files of the artefact of that name."""
    name = reference.split("@", maxsplit=1)[0].rsplit("/", 1)[1]
    if name == "agent":
        return {"kata-static-agent.tar.zst": archive("usr/bin/kata-agent", program("kata-agent")), "version": b"1"}
    return {f"{name}.tar.xz": archive(name, program(name))}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example beside the files that it names; its registry and its web server answer."""

    def pull(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["oras", "pull", "--output"]
        for name, content in artefact(command[4]).items():
            Path(command[3], name).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    (tmp_path / "build").mkdir()
    (tmp_path / "build/kata-agent").write_bytes(program("kata-agent"))
    (tmp_path / "build/pause-bundle.tar").write_bytes(archive("rootfs/pause", program("pause")))
    monkeypatch.setattr(inputs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(inputs.subprocess, "run", pull)
    answer = archive("api-server-rest", program("api-server-rest"))
    monkeypatch.setattr(inputs.urllib.request, "urlopen", lambda _url, timeout: io.BytesIO(answer))
    return Path(shutil.copy(EXAMPLE, tmp_path / "inputs.toml"))


def placed(wish: Wish, folder: Path) -> dict[str, bytes]:
    """The files that the builder adds to the image, but for units."""
    for row in inputs.chosen(wish.rows, wish.architecture):
        inputs.place(row, inputs.fetch(row, folder / "cache"), to=folder / "extra")
    files = (file for file in (folder / "extra").rglob("*") if file.is_file())
    return {str(file.relative_to(folder / "extra")): file.read_bytes() for file in files}


def test_every_row_arrives_at_its_place(example: Path, tmp_path: Path) -> None:
    wish = Wish(rows=inputs.read(example))
    found = placed(wish, tmp_path)
    programs = {f"usr/local/bin/{name}": program(name) for name in set(inputs.NAMES) - {inputs.PAUSE}}
    assert found == programs | {"pause_bundle/rootfs/pause": program("pause")}
    assert (tmp_path / "extra/usr/local/bin/kata-agent").stat().st_mode & 0o777 == 0o755
    assert wish.name == "podvm-production-amd64"  # no test image


def test_another_architecture_has_its_own_agent(example: Path, tmp_path: Path) -> None:
    wish = Wish(rows=inputs.read(example), architecture="arm64")
    assert placed(wish, tmp_path) == {"usr/local/bin/kata-agent": program("kata-agent")}
    assert Wish(rows=inputs.read(example), architecture="s390x").is_test


def test_a_file_of_the_image_is_no_archive(example: Path, tmp_path: Path) -> None:
    text = example.read_text().replace('member = "api-server-rest"\n', "")
    example.write_text(text)
    with pytest.raises(ConfigError, match="api-server-rest is no program: name its path in the archive with member"):
        placed(Wish(rows=inputs.read(example)), tmp_path)


def test_a_member_that_is_not_there_is_named_with_those_that_are(example: Path, tmp_path: Path) -> None:
    example.write_text(example.read_text().replace('"attestation-agent"\nsha', '"bin/aa"\nsha'))
    with pytest.raises(ConfigError, match="the archive has no file 'bin/aa', but attestation-agent"):
        placed(Wish(rows=inputs.read(example)), tmp_path)


def test_a_file_is_chosen_among_an_artefact_s(example: Path, tmp_path: Path) -> None:
    example.write_text(example.read_text().replace('file = "kata-static-agent.tar.zst"\n', ""))
    with pytest.raises(ConfigError, match=r"holds kata-static-agent.tar.zst, version: say with file"):
        placed(Wish(rows=inputs.read(example), architecture="arm64"), tmp_path)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind" * 100)
    row = inputs.Input(name="pause-bundle", source="path:x", sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"pause-bundle is no tar archive \(plain, gzip, xz or zstd\)"):
        inputs.place(row, tmp_path / "x", to=tmp_path / "extra")


@pytest.mark.needs("zstd", "xz")
@pytest.mark.parametrize("packer", ["xz", "zstd", "gzip"])
def test_archives_are_unpacked(tmp_path: Path, packer: str) -> None:
    whole = archive("usr/bin/kata-agent", program("kata-agent"))
    packed = subprocess.run([packer, "-c"], input=whole, capture_output=True, check=True).stdout
    (tmp_path / "x").write_bytes(packed)
    row = inputs.Input(name="kata-agent", source="path:x", sha256="0" * 64, member="./usr/bin/kata-agent")
    inputs.place(row, tmp_path / "x", to=tmp_path / "extra")
    assert (tmp_path / "extra/usr/local/bin/kata-agent").read_bytes() == program("kata-agent")


def test_the_builder_s_own_rows_say_so(tmp_path: Path) -> None:
    """The shipped list is empty on purpose: that image is a test image."""
    assert Wish(rows=inputs.read(EXAMPLE.with_name("inputs.toml"))).is_test
    assert "inputs.example.toml" in EXAMPLE.with_name("inputs.toml").read_text()
    assert recipe.Wish(rows=inputs.read(EXAMPLE)).is_test is False
