"""`caa config check` looks further than a start does: into files that settings name, and for keys that set nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caa.cli import World, find, main
from caa.wire import pki

DAY = timedelta(days=1)


def check(capsys: pytest.CaptureFixture[str], **environ: str) -> tuple[int, str, str]:
    def replace(*_: object) -> None:
        raise AssertionError("a check becomes no other program")

    status = main(["config", "check"], World(environ, find, replace))
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """CA, client certificate and key that fit."""
    now = datetime.now(UTC)
    authority = pki.create_authority("o", "ca", lifetime=DAY, now=now)
    other = pki.create_authority("o", "other", lifetime=DAY, now=now)
    parts = {"CACERT_FILE": authority.cert_pem, "CERT_FILE": authority.cert_pem, "CERT_KEY": authority.key_pem}
    for name, text in {**parts, "OTHER_KEY": other.key_pem, "GARBAGE": "no PEM\n", "EMPTY": ""}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return {name: str(tmp_path / name) for name in parts}


def test_files_that_fit(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = check(capsys, **files)
    assert (status, err) == (0, "")
    assert out.startswith("ok: ")


@pytest.mark.parametrize("name", ["CACERT_FILE", "CERT_FILE", "CERT_KEY"])
@pytest.mark.parametrize("wrong", ["absent", "GARBAGE", "EMPTY"])
def test_a_file_that_is_wrong_is_named(
    files: dict[str, str], name: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = str(Path(files[name]).with_name(wrong))
    status, _, err = check(capsys, **{**files, name: bad})
    assert status == 2
    assert name in err
    assert bad in err


def test_a_key_of_another_certificate(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    other = str(Path(files["CERT_KEY"]).with_name("OTHER_KEY"))
    status, _, err = check(capsys, **{**files, "CERT_KEY": other})
    assert status == 2
    assert "fits CERT_FILE" in err
    assert "PRIVATE KEY-----" not in err


def test_keys_that_set_nothing_are_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("PROXY_TIMEUOT", "GC_INTERVAL", "notes.txt"):
        (tmp_path / key).write_text("10m")
    status, out, err = check(capsys, CAA_CONFIG_DIR=str(tmp_path))
    assert status == 0
    assert out.startswith("ok: ")
    assert err == (
        "caa: warning: CAA_CONFIG_DIR: PROXY_TIMEUOT is no setting and is not used; did you mean PROXY_TIMEOUT?\n"
    )
