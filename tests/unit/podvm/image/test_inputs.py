"""Pinned inputs: what is refused, and that a digest is compared."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from caa.errors import ConfigError, Unavailable
from podvm.image import inputs
from podvm.image.inputs import Input

DIGEST = hashlib.sha256(b"agent").hexdigest()
SHIPPED = Path(inputs.__file__).with_name("inputs.toml")


def row(**values: str) -> str:
    whole = {"name": "kata-agent", "source": "path:/x", "sha256": DIGEST} | values
    return "[[input]]\n" + "".join(f'{key} = "{value}"\n' for key, value in whole.items() if value != "-")


def test_the_file_that_we_ship_names_nothing():
    assert inputs.parse(SHIPPED.read_text()) == ()


def test_rows_are_chosen_by_architecture():
    rows = inputs.parse(row(architecture="amd64") + row(architecture="arm64") + row(name="pause-bundle"))
    assert [(one.name, one.architecture) for one in inputs.chosen(rows, "arm64")] == [
        ("kata-agent", "arm64"),
        ("pause-bundle", ""),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (row(sha256="-"), r"input 1 \(kata-agent\) is not pinned: give sha256"),
        (row(sha256="latest"), "is not pinned"),
        (row(source="oci:registry/agent:latest"), "the artefact needs its digest"),
        (row(source="http://x/agent"), "source has to begin with path:, https:// or oci:"),
        (row(source="https:x"), "source has to begin with path:, https:// or oci:"),
        (row(source="oci:registry/agent@sha256:12"), "the artefact needs its digest"),
        (row(name="other"), "name has to be one of kata-agent, "),
        (row(digest="x"), "unknown key 'digest'"),
        (row() + row(), "kata-agent is there twice"),
        ("[[inputs]]\n", "unknown key 'inputs'"),
        ("x =", "is not TOML"),
        ("[[input]]\nname = 1\n", "every value has to be text"),
    ],
)
def test_what_is_not_pinned_or_not_known_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        inputs.parse(text)


def test_a_file_is_kept_under_its_digest(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"agent")
    one = Input(name="kata-agent", source=f"path:{tmp_path}/agent", sha256=DIGEST)
    kept = inputs.fetch(one, tmp_path / "cache")
    assert kept == tmp_path / "cache" / DIGEST
    (tmp_path / "agent").unlink()
    assert inputs.fetch(one, tmp_path / "cache").read_bytes() == b"agent"


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"evil")
    one = Input(name="kata-agent", source=f"path:{tmp_path}/agent", sha256=DIGEST)
    with pytest.raises(ConfigError, match=f"has the SHA-256 .*, inputs.toml says {DIGEST}"):
        inputs.fetch(one, tmp_path / "cache")
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == []


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"agent")
    one = Input(name="kata-agent", source=f"path:{tmp_path}/agent", sha256=DIGEST)
    inputs.fetch(one, tmp_path / "cache").write_bytes(b"evil")
    assert inputs.fetch(one, tmp_path / "cache").read_bytes() == b"agent"


def test_a_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="kata-agent cannot be had from path:/no/such"):
        inputs.fetch(Input(name="kata-agent", source="path:/no/such", sha256=DIGEST), tmp_path)


def test_an_artefact_comes_by_oras_and_is_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(command)
        Path(command[3], "agent").write_bytes(b"agent")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(inputs.shutil, "which", lambda _: "/usr/bin/oras")
    monkeypatch.setattr(inputs.subprocess, "run", run)
    reference = f"registry/agent@sha256:{DIGEST}"
    one = Input(name="kata-agent", source=f"oci:{reference}", sha256=DIGEST)
    assert inputs.fetch(one, tmp_path).read_bytes() == b"agent"
    assert called[0][:2] == ["oras", "pull"]
    assert called[0][-1] == reference


def test_without_oras_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs.shutil, "which", lambda _: None)
    one = Input(name="kata-agent", source=f"oci:registry/agent@sha256:{DIGEST}", sha256=DIGEST)
    with pytest.raises(ConfigError, match="needs the program oras, or download the file and name it with path:"):
        inputs.fetch(one, tmp_path)
