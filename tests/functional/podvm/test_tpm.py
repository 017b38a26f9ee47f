"""PCR 8 of a real software TPM: process-user-data extends it, tpm2-tools read it."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caa.userdata import initdata
from caa.userdata.cloudconfig import File, render
from podvm import provision, tpm
from podvm.clouds.nocloud import NoCloud
from podvm.measure import Presence, Tpm
from podvm.provision import Rules

pytestmark = [pytest.mark.needs("swtpm"), pytest.mark.needs("tpm2_pcrread")]
DUMMY_PCR = "4b58b30becd30d16f7f60d56b32661d921ae0d3310c6a89f5d552f9bfee921a9"
TOML = 'algorithm = "sha384"\nversion = "0.1.0"\n[data]\n"aa.toml" = "x = 1"\n'


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Path]:
    """The socket of a TPM that has just been switched on. It serves one connection after the other."""
    state, data, control = (tmp_path / name for name in ("state", "tpm.sock", "tpm.sock.ctrl"))
    state.mkdir()
    line = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"]
    ends = ["--server", f"type=unixio,path={data}", "--ctrl", f"type=unixio,path={control}"]
    process = subprocess.Popen([*line, *ends], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not (listens(data) and listens(control)) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield data
    finally:
        process.kill()
        process.wait()


def tools(swtpm: Path, *command: str) -> str:
    """A program of tpm2-tools on the same TPM."""
    environ = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={swtpm}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def provisioned(root: Path, swtpm: Path, *files: File) -> int:
    root.mkdir(exist_ok=True)
    (root / "user-data").write_bytes(render(files))
    rules = Rules(root=root, tpm=Tpm(presence=Presence.REQUIRED, device=swtpm))
    return provision.run([NoCloud(root / "user-data")], rules)


def test_the_dummy_leaves_the_references_value(tmp_path: Path, swtpm: Path) -> None:
    assert provisioned(tmp_path / "root", swtpm) == 0
    with tpm.opened(swtpm) as ask:
        assert tpm.read_pcr(ask).hex() == DUMMY_PCR
        assert tpm.read_pcr(ask, 9) == bytes(32)
    read = tools(swtpm, "tpm2_pcrread", "sha256:8+sha384:8")
    assert DUMMY_PCR.upper() in read
    assert "0x" + "0" * 96 in read  # no other bank is touched, as in the reference


def test_it_is_what_the_references_tool_does(tmp_path: Path, swtpm: Path) -> None:
    files = [File("/run/peerpod/initdata", initdata.encode(TOML))]
    tools(swtpm, "tpm2_pcrextend", f"8:sha256={initdata.parse(TOML).digest[:64]}")
    wanted = tpm.predicted(initdata.parse(TOML).digest)
    with tpm.opened(swtpm) as ask:
        assert tpm.read_pcr(ask) == wanted
    # So for us it is measured already, and nothing is extended again.
    assert provisioned(tmp_path / "root", swtpm, *files) == 0
    with tpm.opened(swtpm) as ask:
        assert tpm.read_pcr(ask) == wanted


def test_twice_is_once(tmp_path: Path, swtpm: Path) -> None:
    for _ in range(2):
        assert provisioned(tmp_path / "root", swtpm, File("/run/peerpod/initdata", initdata.encode(TOML))) == 0
    with tpm.opened(swtpm) as ask:
        assert tpm.read_pcr(ask) == tpm.predicted(initdata.parse(TOML).digest)


def test_nothing_starts_when_it_cannot_be_measured(
    tmp_path: Path, swtpm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The attestation agent waits for aa.toml, which is not written then."""
    tools(swtpm, "tpm2_pcrextend", f"8:sha256={'11' * 32}")
    assert provisioned(tmp_path / "root", swtpm, File("/run/peerpod/initdata", initdata.encode(TOML))) == 1
    assert "something else in this image extends it" in caplog.text
    assert not (tmp_path / "root/run/peerpod/aa.toml").exists()


def test_a_tpm_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "tpm.sock"))
    assert provisioned(tmp_path / "root", tmp_path / "tpm.sock") == 1
    assert "cannot be used: Connection refused" in caplog.text
