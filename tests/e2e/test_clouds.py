"""The demo's pod with the drivers of the public clouds: official SDK, fake cloud, local pod VM, metadata service."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("runc", "nft", "ip", "unshare", "busybox"),
]
DEMO = [sys.executable, "-m", "caa", "demo"]
IDS = {
    "aws": r"i-[0-9a-f]{17}",
    "azure": r"/subscriptions/[^/]+/resourceGroups/pods/.*/virtualMachines/podvm-pod0-[0-9a-f]{8}",
    "gcp": r"podvm-pod0-[0-9a-f]{8}",
}


@pytest.mark.parametrize(("cloud", "shim"), [("aws", "go"), ("azure", "runtime-rs"), ("gcp", "go")])
def test_one_pod_comes_and_goes_in_a_cloud(cloud: str, shim: str) -> None:
    command = [*DEMO, "--json", "--provider", cloud, "--shim", shim]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["ok"], result["provider"], result["left_over"]) == (True, cloud, {})
    assert result["exec"] == {"stdin_bytes": 100_000, "exit_code": 7, "hostname": "pod0"}
    assert result["network"]["user_data_from"] == cloud
    assert re.fullmatch(IDS[cloud], result["network"]["instance_id"])
    assert result["network"]["copied_mib"] == 50
    assert result["survived"]["lines_missing"] == 0
    assert result["timings_ms"]["  node: launch"] > 1000  # the fake takes its time, as a cloud does


def test_a_signal_ends_the_cloud_too() -> None:
    demo = subprocess.Popen([*DEMO, "--provider", "aws", "--keep"], stdout=PIPE, stderr=PIPE, text=True)
    assert demo.stdout is not None
    assert "Starting 1 pod(s)" in demo.stdout.readline()
    time.sleep(2.0)  # its instance is pending or boots
    folder = _folder(demo.pid)
    assert b"tests.fakes.aws" in _running(folder)
    demo.send_signal(signal.SIGTERM)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130, out + err
    assert out.splitlines()[-1] == "demo: interrupted, all removed"
    assert not _running(folder)
    assert not Path(folder).exists()


def test_a_cloud_that_nobody_knows() -> None:
    done = subprocess.run([*DEMO, "--provider", "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'nonsense' is not one of 'local', 'libvirt', 'aws', 'azure', 'gcp'" in done.stderr


def _folder(demo: int) -> str:
    """The demo's own folder: an argument of its child."""
    (child,) = Path(f"/proc/{demo}/task/{demo}/children").read_text().split()
    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
    return words[words.index("--inside") + 1]


def _running(folder: str) -> bytes:
    """The command lines of what runs with that folder: the demo, the fake cloud, the pod VMs."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it ended while we looked
            continue
        found += line if folder.encode() in line else b""
    return found
