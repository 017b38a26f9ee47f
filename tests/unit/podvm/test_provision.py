"""What the guest writes from user data and initdata, and what it refuses."""

import logging
from pathlib import Path
from typing import Any

import pytest

from caa.errors import InitdataError, InvalidInput, StateError
from caa.userdata import cloudconfig, initdata
from caa.userdata.cloudconfig import File
from podvm import provision
from podvm.clock import Clock
from podvm.clouds.nocloud import NoCloud
from podvm.provision import Rules

TOML = """algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = "measured"
"policy.rego" = "package agent_policy\\r\\n"
"../evil" = "x"
"""
DUMMY = "adb48cc14fea9403d3d51f3b5f5068fd4d80445a14e94f1b3d5dbabaad66478d"


class Drive:
    """A source that holds some files."""

    name = "test"

    def __init__(self, *files: File) -> None:
        self._files = files

    def present(self) -> bool:
        return True

    def fetch(self, seconds: float) -> bytes:
        return cloudconfig.render(self._files)


def written(root: Path) -> dict[str, str]:
    """Every file below the root, by its guest path."""
    files = (file for file in root.rglob("*") if file.is_file())
    return {"/" + str(file.relative_to(root)): file.read_bytes().decode() for file in files}


def rules(root: Path, **more: Any) -> Rules:
    """Rules whose clock jumps instead of sleeping."""
    at = iter(range(0, 10_000, 5))
    return Rules(root=root, clock=Clock(now=lambda: float(next(at)), sleep=lambda _: None), **more)


def run(root: Path, *files: File, unmeasured: bool = False) -> dict[str, str]:
    provision.provision([Drive(*files)], rules(root, unmeasured_attestation=unmeasured))
    return written(root)


def test_allowed_files_are_written_exactly(tmp_path: Path) -> None:
    found = run(tmp_path, File("/run/peerpod/apf.json", "{}\r\n "), File("/run/peerpod/scratch-space.marker"))
    assert found["/run/peerpod/apf.json"] == "{}\r\n "
    assert found["/run/peerpod/scratch-space.marker"] == ""


def test_modes_are_private(tmp_path: Path) -> None:
    run(tmp_path, File("/run/peerpod/apf.json", "key"), File("/run/peerpod/initdata", initdata.encode(TOML)))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    assert oct((tmp_path / "run" / "peerpod").stat().st_mode & 0o777) == "0o755"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/run/peerpod/../x", "/run/peerpod/policy.rego", "/run/peerpod/initdata.digest", "/a b"]
)
def test_other_paths_are_skipped_with_a_line(tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    found = run(tmp_path, File(path, "secret"))
    assert found == {"/run/peerpod/aa.toml": "", "/run/peerpod/initdata.digest": DUMMY}
    assert repr(path) in caplog.text
    assert "secret" not in caplog.text


def test_attestation_files_come_from_initdata_only(tmp_path: Path) -> None:
    files = [File("/run/peerpod/aa.toml", "the host's"), File("/run/peerpod/cdh.toml", "the host's")]
    found = run(tmp_path, *files)
    assert found["/run/peerpod/aa.toml"] == ""  # the dummy's
    assert "/run/peerpod/cdh.toml" not in found


def test_an_image_may_trust_the_hosts_attestation_files(tmp_path: Path) -> None:
    found = run(tmp_path, File("/run/peerpod/aa.toml", "the host's"), unmeasured=True)
    assert found["/run/peerpod/aa.toml"] == "the host's"
    assert found["/run/peerpod/initdata.digest"] == DUMMY


def test_initdata_is_unpacked_and_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [File("/run/peerpod/aa.toml", "the host's"), File("/run/peerpod/initdata", initdata.encode(TOML))]
    found = run(tmp_path, *files, unmeasured=True)
    assert found["/run/peerpod/aa.toml"] == "measured"
    assert found["/run/peerpod/policy.rego"] == "package agent_policy\r\n"
    assert found["/run/peerpod/initdata.digest"] == initdata.parse(TOML).digest
    assert len(found["/run/peerpod/initdata.digest"]) == 96
    assert [path for path in found if "evil" in path] == []
    assert "'../evil'" in caplog.text


def test_without_any_source_the_dummy_stands_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    provision.provision([NoCloud(tmp_path / "absent")], rules(tmp_path))
    assert written(tmp_path) == {"/run/peerpod/aa.toml": "", "/run/peerpod/initdata.digest": DUMMY}
    assert "no source of user data" in caplog.text


def test_files_that_cloud_init_wrote_are_used(tmp_path: Path) -> None:
    (tmp_path / "run" / "peerpod").mkdir(parents=True)
    (tmp_path / "run" / "peerpod" / "initdata").write_text(initdata.encode(TOML))
    provision.provision([], rules(tmp_path))
    assert written(tmp_path)["/run/peerpod/aa.toml"] == "measured"


def test_twice_is_once(tmp_path: Path) -> None:
    first = run(tmp_path, File("/run/peerpod/apf.json", "{}"))
    assert run(tmp_path, File("/run/peerpod/apf.json", "{}")) == first


@pytest.mark.parametrize(
    "text", ["not base64!", "aGVsbG8=", initdata.encode("algorithm = 'md5'"), initdata.encode("= ")]
)
def test_initdata_that_cannot_be_used_stops_the_boot(tmp_path: Path, text: str) -> None:
    with pytest.raises(InitdataError, match="/run/peerpod/initdata"):
        run(tmp_path, File("/run/peerpod/initdata", text))
    assert "/run/peerpod/initdata.digest" not in written(tmp_path)


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "run" / "peerpod"
    folder.mkdir(parents=True)
    (folder / "apf.json").symlink_to(target)
    (folder / ".apf.json.new").symlink_to(target)
    run(tmp_path, File("/run/peerpod/apf.json", "{}"))
    assert target.read_text() == "mine"
    assert not (folder / "apf.json").is_symlink()


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run" / "peerpod" / "apf.json").mkdir(parents=True)
    with pytest.raises(StateError, match=r"apf\.json cannot be written"):
        run(tmp_path, File("/run/peerpod/apf.json", "{}"))


def test_run_says_what_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "user-data").write_bytes(b"runcmd: [reboot]\n")
    assert provision.run([NoCloud(tmp_path / "user-data")], rules(tmp_path)) == 1
    assert "unknown key 'runcmd'" in caplog.text
    (tmp_path / "user-data").write_bytes(b"#cloud-config\n")
    assert provision.run([NoCloud(tmp_path / "user-data")], rules(tmp_path)) == 0


def test_a_config_drive_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "user-data").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(InvalidInput, match="larger than 16777216 bytes"):
        NoCloud(tmp_path / "user-data").fetch(1.0)
