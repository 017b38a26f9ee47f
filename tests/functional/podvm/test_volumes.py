"""Volumes on loop devices: real mkfs, real mounts in a mount namespace; LUKS2 by a strict stand-in hub."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podvm import volumes

ROOT = Path(__file__).resolve().parents[3]
KEY = "kbs:///default/volumes/data"
pytestmark = [
    pytest.mark.root,
    *(pytest.mark.needs(tool) for tool in ("losetup", "mkfs.ext4", "mkfs.xfs", "nsenter", "cryptsetup")),
]


@dataclass
class Room:
    """A mount namespace with a /run of its own."""

    process: subprocess.Popen[bytes]

    def argv(self, *command: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", *command]

    def run(self, *command: str, text: str = "") -> str:
        done = subprocess.run(self.argv(*command), input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def attach(self, **wanted: Any) -> list[tuple[bytes, bytes]] | str:
        """What the forwarder's child says to the annotation."""
        program = volumes._ATTACH.format(root=str(ROOT))
        said = self.run(sys.executable, "-I", "-S", "-c", program, text=json.dumps(wanted))
        return volumes.outcome(said.encode())


@pytest.fixture
def room() -> Iterator[Room]:
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /run && exec sleep 600"])
    found = Room(process)
    deadline = time.monotonic() + 10
    # Only then is its /run mounted; before, `nsenter` would lead into our own namespace.
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield found
    process.kill()
    process.wait()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes blank disks."""
    made: list[str] = []

    def make(mebibytes: int = 48) -> str:
        image = tmp_path / f"disk{len(made)}"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        made.append(
            subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True).stdout
        )
        return made[-1].strip()

    yield make
    for device in made:
        subprocess.run(["losetup", "-d", device.strip()], check=False)


def volume(disk_id: str, **more: Any) -> dict[str, Any]:
    return {"mount_point": "/data", "disk_id": disk_id, "fs_type": "ext4", **more}


@pytest.mark.parametrize("kind", ["ext4", "ext3", "xfs"])
def test_a_blank_disk_is_formatted_once(room: Room, disk: Callable[..., str], kind: str) -> None:
    device = disk(320)  # xfs takes no smaller one
    assert room.attach(vol=volume(device, fs_type=kind)) == [(b"/data", b"/run/cloud-volumes/vol")]
    room.run("sh", "-c", "echo kept > /run/cloud-volumes/vol/file")
    assert room.run("findmnt", "-no", "FSTYPE,SOURCE", "/run/cloud-volumes/vol").split() == [kind, device]
    room.run("umount", "/run/cloud-volumes/vol")
    assert room.attach(vol=volume(device, fs_type=kind)) == [(b"/data", b"/run/cloud-volumes/vol")]
    assert room.run("cat", "/run/cloud-volumes/vol/file") == "kept\n"


def test_a_second_container_with_the_same_volume(room: Room, disk: Callable[..., str]) -> None:
    device = disk()
    for _ in range(2):
        assert room.attach(vol=volume(device)) == [(b"/data", b"/run/cloud-volumes/vol")]
    assert room.run("findmnt", "-rno", "TARGET", "-S", device).split() == ["/run/cloud-volumes/vol"]


def test_the_group_of_the_pod_may_write(room: Room, disk: Callable[..., str]) -> None:
    device = disk()
    room.attach(vol=volume(device))
    room.run("sh", "-c", "mkdir -p /run/cloud-volumes/vol/a && touch /run/cloud-volumes/vol/a/b")
    room.run("umount", "/run/cloud-volumes/vol")
    assert room.attach(vol=volume(device, fs_group="2000")) == [(b"/data", b"/run/cloud-volumes/vol")]
    found = room.run("stat", "-c", "%g %a", "/run/cloud-volumes/vol", "/run/cloud-volumes/vol/a/b").split("\n")
    assert found[:2] == ["2000 2775", "2000 664"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"offset": 0, "data": b"\xeb\x63\x90 a boot sector"}, "something else"),
        ({"offset": (48 << 20) - 512, "data": b"EFI PART"}, "something else"),
        ({"offset": 0, "data": b"LUKS\xba\xbe\x00\x02"}, "luks2"),
        ({"offset": 0, "data": b"XFSB"}, "xfs"),
    ],
)
def test_a_disk_with_anything_on_it_is_not_formatted(
    room: Room, disk: Callable[..., str], content: dict[str, Any], text: str
) -> None:
    device = disk()
    with Path(device).open("r+b") as file:
        file.seek(content["offset"])
        file.write(content["data"])
    before = Path(device).read_bytes()
    said = room.attach(vol=volume(device))
    assert said == f"volume vol: the disk {device} holds {text}, asked for is ext4; it is not formatted"
    assert Path(device).read_bytes() == before


def test_a_disk_in_use_is_no_volume(room: Room, disk: Callable[..., str]) -> None:
    device = disk()
    room.attach(vol=volume(device))
    assert room.attach(other=volume(device)) == f"volume other: the disk {device} is in use already"


def test_a_disk_that_is_too_small_says_so(room: Room, disk: Callable[..., str]) -> None:
    said = room.attach(vol=volume(disk(16), fs_type="xfs"))
    assert isinstance(said, str)
    assert "cannot be formatted as xfs" in said
    assert "ilesystem" in said or "size" in said


def test_unmounting_everything(room: Room, disk: Callable[..., str]) -> None:
    device = disk()
    room.attach(one=volume(device), two=volume(disk(), mount_point="/two"))
    unmount = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from podvm import volumes; volumes.unmount_all()"
    for _ in range(2):
        room.run(sys.executable, "-I", "-S", "-c", unmount)
    assert "cloud-volumes" not in room.run("cat", "/proc/self/mountinfo")


@dataclass
class Hub:
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def hub(room: Room, tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "keys.json").write_text(json.dumps({KEY: "a secret of 32 bytes or more......"}))
    room.run("mkdir", "-p", "/run/confidential-containers")
    path = "/run/confidential-containers/cdh.sock"
    line = room.argv(sys.executable, "-m", "tests.fakes.cdh", path, str(tmp_path / "keys.json"))
    with (tmp_path / "hub.log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    deadline = time.monotonic() + 60
    while subprocess.run(room.argv("test", "-S", path), check=False).returncode:
        assert time.monotonic() < deadline, (tmp_path / "hub.log").read_text()
        time.sleep(0.05)
    yield Hub(tmp_path / "hub.log")
    process.send_signal(signal.SIGTERM)
    process.wait()


def test_an_encrypted_volume_is_the_hubs(room: Room, disk: Callable[..., str], hub: Hub) -> None:
    device = disk()
    wanted = volume(device, encrypt_type="luks2", key_id=KEY)
    assert room.attach(vol=wanted) == [(b"/data", b"/run/cloud-volumes/vol")]
    room.run("umount", "/run/cloud-volumes/vol")
    assert room.attach(vol=wanted) == [(b"/data", b"/run/cloud-volumes/vol")]
    first, second = hub.requests()
    assert first == {
        "mount_point": "/run/cloud-volumes/vol",
        "options": {
            "devicePath": device, "sourceType": "empty", "targetType": "fileSystem", "encryptionType": "luks2",
            "filesystemType": "ext4", "key": KEY, "mapperName": "caa-vol",
        },
    }  # fmt: skip
    assert second["options"]["sourceType"] == "encrypted"
    assert Path(device).read_bytes()[:8] == b"LUKS\xba\xbe\x00\x02"


def test_a_key_that_the_broker_does_not_give(room: Room, disk: Callable[..., str], hub: Hub) -> None:
    device = disk()
    said = room.attach(vol=volume(device, encrypt_type="luks2", key_id="kbs:///default/volumes/other"))
    assert isinstance(said, str)
    assert "does not mount /run/cloud-volumes/vol: get key failed: no resource kbs:///default/volumes/other" in said
    assert not Path(device).read_bytes().strip(b"\0")


def test_a_plain_disk_is_no_encrypted_volume(room: Room, disk: Callable[..., str], hub: Hub) -> None:
    """A host that hands out a disk of its own in clear gets nothing written to it."""
    device = disk()
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    said = room.attach(vol=volume(device, encrypt_type="luks2", key_id=KEY))
    assert said == f"volume vol: the disk {device} holds ext4, not LUKS2: neither used nor formatted"
    assert hub.requests() == []


def test_without_a_hub(room: Room, disk: Callable[..., str]) -> None:
    said = room.attach(vol=volume(disk(), encrypt_type="luks2", key_id=KEY))
    assert (
        said
        == "the Confidential Data Hub at /run/confidential-containers/cdh.sock is not there: No such file or directory"
    )
