"""The settings directory: which files count, how a change is seen, and what cannot be read."""

from pathlib import Path

import pytest

from caa.config.directory import read, stamp
from caa.errors import ConfigError


def mounted(folder: Path, generation: str, **keys: str) -> None:
    """As the kubelet writes a ConfigMap: a hidden folder with the files, and one link that is exchanged as a whole."""
    data = folder / f"..{generation}"
    data.mkdir()
    for key, text in keys.items():
        (data / key).write_text(text)
        if not (folder / key).is_symlink():
            (folder / key).symlink_to(f"..data/{key}")
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").replace(folder / "..data")


def test_only_files_with_a_key_s_name(tmp_path: Path) -> None:
    for name in ("GC_INTERVAL", "X1", "lower", ".hidden", "WITH.DOT", "1X"):
        (tmp_path / name).write_text(name)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "DANGLING").symlink_to("nowhere")
    assert read(tmp_path) == {"GC_INTERVAL": "GC_INTERVAL", "X1": "X1"}


def test_no_directory_is_no_setting() -> None:
    assert (read(None), stamp(None)) == ({}, ())


def test_a_mounted_one_that_changes(tmp_path: Path) -> None:
    mounted(tmp_path, "1", A="one", B="same")
    before = stamp(tmp_path)
    assert read(tmp_path) == {"A": "one", "B": "same"}
    assert stamp(tmp_path) == before
    mounted(tmp_path, "2", A="two", B="same")
    assert stamp(tmp_path) != before
    assert read(tmp_path) == {"A": "two", "B": "same"}


def test_a_file_that_comes_and_goes(tmp_path: Path) -> None:
    empty = stamp(tmp_path)
    (tmp_path / "A").write_text("x")
    assert stamp(tmp_path) != empty
    (tmp_path / "A").unlink()
    assert stamp(tmp_path) == empty


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "A is not UTF-8 text"), (b"x" * ((2 << 20) + 1), "A is longer than 2097152")]
)
def test_a_file_that_is_no_setting(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "A").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read(tmp_path)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    for what in (read, stamp):
        with pytest.raises(ConfigError, match="nowhere cannot be read"):
            what(tmp_path / "nowhere")
