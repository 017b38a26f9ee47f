"""The demo's pod in a real virtual machine: QEMU under a libvirtd of its own, the tiny image, our user data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / ".cache" / "image" / "tiny"

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.needs("runc", "nft", "ip", "unshare", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq"),
]


@pytest.fixture(scope="module")
def image() -> Path:
    subprocess.run([sys.executable, "-m", "podvm.image", "tiny"], cwd=ROOT, check=True, capture_output=True)
    return IMAGE


@pytest.mark.parametrize("shim", ["go", "runtime-rs"])
def test_one_pod_comes_and_goes_in_a_virtual_machine(image: Path, shim: str) -> None:
    command = [sys.executable, "-m", "caa", "demo", "--json", "--provider", "libvirt", "--image", str(image)]
    done = subprocess.run([*command, "--shim", shim], capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert result["provider"] == "libvirt"
    assert result["left_over"] == {}
    assert result["exec"] == {"stdin_bytes": 100_000, "exit_code": 7, "hostname": "pod0"}
    assert result["network"]["copied_mib"] == 50
    assert result["survived"]["lines_missing"] == 0
    assert result["network"]["user_data_from"] == "nocloud"
    for milestone in ("firmware", "kernel", "podns is there", "agent listens", "forwarder listens"):
        assert result["timings_ms"][f"  guest: {milestone}"] > 0


def test_without_an_image_it_says_how_to_make_one() -> None:
    command = [sys.executable, "-m", "caa", "demo", "--provider", "libvirt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "make demo PROVIDER=libvirt" in done.stdout
