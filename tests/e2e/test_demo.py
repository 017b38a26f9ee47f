"""The README's first command, as a newcomer runs it, and its other forms."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from caa.testing.demo import world

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip", "unshare", "busybox")]
DEMO = [sys.executable, "-m", "caa", "demo"]


def _demo(*argv: str) -> dict[str, Any]:
    done = subprocess.run([*DEMO, "--json", *argv], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("shim", ["go", "runtime-rs"])
def test_one_pod_comes_and_goes(shim):
    result = _demo("--shim", shim)
    assert result["ok"] is True
    assert result["provider"] == "local"
    assert result["left_over"] == {}
    assert result["exec"] == {"stdin_bytes": 100_000, "exit_code": 7, "hostname": "pod0"}
    assert result["network"]["copied_mib"] == 50
    assert result["survived"]["lines_missing"] == 0
    assert result["survived"]["lines_counted"] > 60
    assert re.fullmatch(r"podvm-pod0-[0-9a-f]{8}", result["network"]["instance"])
    assert {"CreateVM", "StartVM", "CreateSandbox", "  node: launch", "  guest: forwarder listens"} <= set(
        result["timings_ms"]
    )


def test_the_text_shows_the_waterfall_and_the_verdict():
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == "demo: passed"
    assert any(re.match(r" +StartVM +\d+ +\d+ ms +█", line) for line in lines)


@pytest.mark.timeout(300)
def test_fifty_pods_at_once():
    result = _demo("--pods", "50")
    assert result["ok"] is True
    assert result["pods"] == 50


def test_a_kept_pod_takes_an_exec_and_goes_with_ctrl_c():
    demo = subprocess.Popen([*DEMO, "--keep"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert demo.stdout is not None
    try:
        command = _exec_line(demo)
        script = f"{command} -c 'echo kept; exit 5'"  # as printed, from a shell that is somewhere else
        done = subprocess.run(script, shell=True, cwd="/", capture_output=True, text=True, timeout=30, check=False)
        assert (done.stdout, done.returncode) == ("kept\n", 5), done.stderr
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        rest, _ = demo.communicate(timeout=60)
    assert rest.splitlines()[-1] == "demo: passed"


@pytest.mark.parametrize("seconds", [0.0, 0.6, 1.1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_removes_everything(number, seconds):
    groups = set(_groups())
    demo = subprocess.Popen([*DEMO, "--pods", "2", "--keep"], stdout=PIPE, stderr=PIPE, text=True)
    folders = _begun(demo.pid)
    time.sleep(seconds)
    demo.send_signal(number)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode in (0, 130), out + err
    assert "Traceback" not in out + err
    assert not [folder for folder in folders if Path(folder).exists() or _running(folder)]
    assert set(_groups()) <= groups
    if demo.returncode == 130:
        assert out.splitlines()[-1] == "demo: interrupted, all removed"


def _groups() -> list[Path]:
    return [path for depth in ("", "*/") for path in world.CGROUPS.glob(f"{depth}caa-local-*")]


def _begun(demo: int) -> list[str]:
    """The demo's own folder, waited for: before it is there a signal is for Python, which is starting still."""
    end = time.monotonic() + 20
    while not (folders := _folders(demo)):
        assert time.monotonic() < end
        time.sleep(0.002)
    return folders


def _folders(demo: int) -> list[str]:
    """The demo's own folder, once there is one: an argument of its child."""
    found = []
    for child in Path(f"/proc/{demo}/task/{demo}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        found += [words[at + 1] for at, word in enumerate(words) if word == "--inside"]
    return found


def _running(folder: str) -> list[str]:
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [path.name for path in processes if path.exists() and folder in (path / "cmdline").read_text()]


def _exec_line(demo: "subprocess.Popen[str]") -> str:
    assert demo.stdout is not None
    end = time.monotonic() + 60
    for line in demo.stdout:
        if "caa.testing.shim exec" in line:
            return line.strip()
        assert time.monotonic() < end
    raise AssertionError("the demo ended without saying how to exec")
