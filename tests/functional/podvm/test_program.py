"""process-user-data as a program in a network of its own, where the cloud's address answers on port 80."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from caa.userdata import initdata
from caa.userdata.cloudconfig import File, render

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.root, pytest.mark.needs("ip"), pytest.mark.needs("unshare")]
TOML = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = "measured"\n'
CLOUDS = {
    "aws": "169.254.169.254", "azure": "169.254.169.254", "gcp": "169.254.169.254", "ibmcloud": "169.254.169.254",
    "alibabacloud": "100.100.100.200",
}  # fmt: skip
# The service starts a second after the program, as a network may. Files show with mode, owner and path.
SCRIPT = """
mount -t tmpfs tmpfs /run && ip link set lo up && ip addr add {address}/32 dev lo || exit 9
(sleep 1; exec {python} -m tests.fakes.metadata {cloud} --user-data {file} --listen {address}:80) & server=$!
{python} -m podvm process-user-data provision-files -source {cloud} -tpm off; status=$?
kill $server
find /run/peerpod -type f -printf '%m %u:%g %p\\n' | sort
echo "digest $(cat /run/peerpod/initdata.digest)"; echo "aa $(cat /run/peerpod/aa.toml)"
exit $status
"""


def run(cloud: str, file: Path) -> subprocess.CompletedProcess[str]:
    words = {"python": sys.executable, "cloud": cloud, "file": file, "address": CLOUDS[cloud]}
    script = SCRIPT.format(**{key: shlex.quote(str(word)) for key, word in words.items()})
    line = ["unshare", "--net", "--mount", "sh", "-c", script]
    return subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip


@pytest.mark.parametrize("cloud", CLOUDS)
def test_files_from_the_clouds_own_address(tmp_path: Path, cloud: str) -> None:
    files = [
        File("/run/peerpod/apf.json", '{"tls-server-key": "SECRET"}'),
        File("/run/peerpod/aa.toml", "the host's"),
        File("/run/peerpod/initdata", initdata.encode(TOML)),
        File("/etc/passwd", "evil"),
    ]
    (tmp_path / "user-data").write_bytes(render(files))
    done = run(cloud, tmp_path / "user-data")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = [line for line in done.stdout.splitlines() if " /run/peerpod/" in line and line[:3].isdigit()]
    assert listed == [
        f"600 root:root /run/peerpod/{name}" for name in ("aa.toml", "apf.json", "initdata", "initdata.digest")
    ]
    assert f"digest {initdata.parse(TOML).digest}" in done.stdout
    assert "aa measured" in done.stdout
    assert "skipped /run/peerpod/aa.toml: user data is not measured, put it into initdata" in done.stdout
    assert "skipped '/etc/passwd': not a path that user data may write" in done.stdout
    assert "; trying again" in done.stdout
    assert "SECRET" not in done.stdout + done.stderr
