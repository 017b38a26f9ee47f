"""What is shipped: the wheel holds what it must and nothing else, and its programs start from where it was unpacked."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("caa", "providers", "podvm")

# `-I -S` keeps this checkout out of the path: neither the working directory nor the editable install counts.
_PROGRAM = """
import runpy, sys
sys.path[len(sys.path):] = {paths!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
_WHERE = "import sys; sys.path.extend({paths!r}); import caa, providers, podvm; print(caa.__file__, podvm.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def unpacked(wheel: Path) -> Path:
    folder = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def paths(unpacked: Path) -> list[str]:
    return [str(unpacked), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


def argv(unpacked: Path, module: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _PROGRAM.format(paths=paths(unpacked), module=module), *words]


def committed() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_every_committed_file_of_the_packages_is_in_it(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in committed() if not name.startswith("podvm/image/")}
    assert wanted - held == set()
    assert {"caa/wire/proto/kata.binpb", "caa/wire/proto/agent.pyi", "caa/py.typed"} <= held


def test_nothing_else_is_in_it(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in held}
    (about,) = tops - set(PACKAGES)
    assert about.endswith(".dist-info")
    assert f"{about}/licenses/LICENSE" in held
    assert [name for name in held if name.startswith("podvm/image/") or "__pycache__" in name] == []


def test_the_modules_come_from_the_unpacked_wheel(unpacked: Path) -> None:
    program = _WHERE.format(paths=paths(unpacked))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert [Path(one).parent.parent for one in done.stdout.split()] == [unpacked, unpacked]


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("podvm", ["--help"], "agent-protocol-forwarder [flags]"),
        ("caa", ["--help"], "relay"),
        ("caa", ["config", "docs"], "`REMOTE_HYPERVISOR_ENDPOINT`"),
    ],
)
def test_a_command_line_of_the_unpacked_wheel(unpacked: Path, module: str, words: list[str], said: str) -> None:
    done = subprocess.run(
        argv(unpacked, module, *words), cwd="/", env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_the_lean_relay_serves_from_the_unpacked_wheel(unpacked: Path, tmp_path: Path) -> None:
    hypervisor = tmp_path / "run" / "hypervisor.sock"
    environ = {
        "REMOTE_HYPERVISOR_ENDPOINT": str(hypervisor),
        "PODS_DIR": str(tmp_path / "pods"),
        "CAA_RUN_DIR": str(tmp_path / "run"),
        "CAA_STATE_DIR": str(tmp_path / "state"),
    }
    with (tmp_path / "log").open("wb") as log:
        relay = subprocess.Popen(argv(unpacked, "caa", "relay"), cwd="/", env=environ, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 20
        while not accepts(hypervisor):
            assert relay.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()  # noqa: PT018
            time.sleep(0.01)
        running = Path(f"/proc/{relay.pid}/cmdline").read_bytes().split(b"\0")
        assert running[1:3] == [b"-I", b"-S"]  # the process that `caa relay` has become
        assert os.fsencode(repr(str(unpacked))) in running[4]
        assert sysconfig.get_path("purelib").encode() not in running[4]
    finally:
        relay.send_signal(signal.SIGTERM)
    assert relay.wait(20) == 0


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0
