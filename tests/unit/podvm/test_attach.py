"""What the volumes annotation may say, which disk it means, and what a disk holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from caa.errors import DeadlineExceeded, InvalidInput
from podvm import attach, disks, volumes
from podvm.attach import Guest, Volume
from podvm.clock import Clock
from podvm.disks import Content, Wanted

EBS = {"mount_point": "/data", "fs_type": "xfs", "disk_id": "vol-0123456789abcdef0"}


def parsed(**fields: Any) -> Volume:
    (found,) = attach.parse(json.dumps({"vol-0": {**EBS, **fields}}))
    return found


def test_the_references_fields() -> None:
    found = parsed(lun="3", fs_group=1000, encrypt_type="LUKS2", key_id="kbs:///a/b/c")
    assert found == Volume(
        name="vol-0",
        mount_point="/data",
        fs_type="xfs",
        disk=Wanted("vol-0123456789abcdef0", 3),
        fs_group=1000,
        key="kbs:///a/b/c",
    )


@pytest.mark.parametrize("empty", [None, ""])
def test_missing_fields(empty: str | None) -> None:
    found = parsed(fs_type=empty, lun=empty, fs_group=empty, encrypt_type=empty, key_id=empty)
    assert (found.fs_type, found.disk.lun, found.fs_group, found.key) == ("ext4", None, None, "")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"fs_type": "btrfs"}, "'fs_type' has to be ext4, ext3, xfs"),
        ({"fs_type": "ext4 -L x"}, "'fs_type'"),
        ({"mount_point": "data"}, "'mount_point' has to be an absolute path"),
        ({"mount_point": "/a/../etc"}, "'mount_point'"),
        ({"disk_id": ""}, "'disk_id' has to be given, or lun"),
        ({"lun": -1}, "'lun'"),
        ({"lun": "1a"}, "'lun'"),
        ({"encrypt_type": "luks1"}, "'encrypt_type' has to be luks2"),
        ({"encrypt_type": "luks2"}, "'key_id' has to be the URI of a key"),
        ({"encrypt_type": "luks2", "key_id": "file:///run/peerpod/apf.json"}, "'key_id'"),
        ({"key_id": "kbs:///a/b/c"}, "'encrypt_type' has to be luks2 where there is a key_id"),
    ],
)
def test_what_is_refused_names_volume_and_field(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match="volumes annotation vol-0: ") as caught:
        parsed(**fields)
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"../x": {}}', '{"a b": {}}', '{"vol": []}', "[" * 10_000])
def test_what_is_no_annotation(text: str) -> None:
    with pytest.raises(InvalidInput, match="volumes annotation"):
        attach.parse(text)


def test_a_disk_that_never_comes(tmp_path: Path) -> None:
    at = iter(range(0, 10_000, 10))
    clock = Clock(now=lambda: float(next(at)), sleep=lambda _: None)
    with pytest.raises(DeadlineExceeded, match=r"volume vol-0: no disk vol-0123456789abcdef0 within 90 s"):
        attach.attach([parsed()], Guest(root=tmp_path / "volumes", devices=tmp_path, clock=clock))


def block(root: Path, name: str, **files: str) -> None:
    """A disk in sysfs and in /dev; `address` is a SCSI disk's."""
    folder = root / "sys/class/block" / name
    folder.mkdir(parents=True)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).touch()
    if "address" in files:
        target = root / "sys/devices" / files.pop("address")
        target.mkdir(parents=True)
        (folder / "device").symlink_to(target)
    for path, text in files.items():
        file = folder / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    block(tmp_path, "nvme0n1", device__serial="vol0aaaaaaaaaaaaaaaa\n")
    block(tmp_path, "nvme1n1", device__serial="vol0123456789abcdef0\n", wwid="nvme.1d0f-766f6c")
    block(tmp_path, "nvme1n1p1", partition="1", device__serial="vol0123456789abcdef0\n")
    block(tmp_path, "vdb", serial="pvc-11111111-2222-33")
    block(tmp_path, "sda", address="0:0:0:0")
    block(tmp_path, "sdb", address="0:0:0:1")
    block(tmp_path, "sdc", address="1:0:0:1")
    block(tmp_path, "vdc", serial="caa-data-2")
    block(tmp_path, "sdd", address="0:0:3:0", device__wwid="t10.Google  PersistentDisk  pvc-7\n")
    block(tmp_path, "loop0", serial="vol0123456789abcdef0")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted("vol-0123456789abcdef0"), "nvme1n1"),
        (Wanted("pvc-11111111-2222-3333-4444"), "vdb"),
        (Wanted("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/data", 1), "sdc"),
        (Wanted("", 1), "sdc"),
        (Wanted("", 0), None),
        (Wanted("vol-0fffffffffffffff0"), None),
        (Wanted("pvc-2", 2), "vdc"),
        (Wanted("pvc-2", 3), None),
        (Wanted("projects/p/zones/z/disks/pvc-7", 0), "sdd"),
        (Wanted("/dev/vdb"), "vdb"),
        (Wanted("/dev/vdz"), None),
    ],
)
def test_a_disk_is_found_by_what_the_cloud_calls_it(machine: Path, wanted: Wanted, name: str | None) -> None:
    assert disks.find(wanted, machine) == (machine / "dev" / name if name else None)


def test_azures_links_come_first(machine: Path) -> None:
    links = machine / "dev/disk/azure/data/by-lun"
    links.mkdir(parents=True)
    (links / "1").symlink_to("../../../../sdb")
    assert disks.find(Wanted("/subscriptions/x/disks/data", 1), machine) == (machine / "dev/sdb").resolve()


def test_two_disks_with_one_name(machine: Path) -> None:
    block(machine, "vdd", serial="vol-0123456789abcdef")
    block(machine, "vde", serial="vol-0123456789abcdef")
    with pytest.raises(InvalidInput, match=r"several disks fit vol-0123456789abcdef: vdd, vde"):
        disks.find(Wanted("vol-0123456789abcdef"), machine)


@pytest.mark.parametrize("path", ["/dev/../etc/passwd", "/dev/disk/by-id/x", "/dev/VDB", "/dev/vdb;reboot"])
def test_what_is_no_path_of_a_disk(machine: Path, path: str) -> None:
    with pytest.raises(InvalidInput, match="not the path of a disk"):
        disks.find(Wanted(path), machine)


def ext(compatible: int, incompatible: int) -> bytes:
    head = bytearray(4096)
    head[1080:1082] = b"\x53\xef"
    head[1116:1120] = compatible.to_bytes(4, "little")
    head[1120:1124] = incompatible.to_bytes(4, "little")
    return bytes(head)


@pytest.mark.parametrize(
    ("data", "holds"),
    [
        (bytes(1 << 21), Content.BLANK),
        (b"XFSB" + bytes(1 << 20), Content.XFS),
        (b"LUKS\xba\xbe\x00\x02" + bytes(1 << 20), Content.LUKS2),
        (b"LUKS\xba\xbe\x00\x01" + bytes(1 << 20), Content.OTHER),
        (ext(0x3C, 0x2C2), Content.EXT4),
        (ext(0x3C, 0x2), Content.EXT3),
        (ext(0x38, 0x2), Content.OTHER),
        (bytes((1 << 21) - 1) + b"x", Content.OTHER),
        (bytes(512) + b"EFI PART" + bytes(1 << 20), Content.OTHER),
    ],
)
def test_what_a_disk_holds(tmp_path: Path, data: bytes, holds: Content) -> None:
    (tmp_path / "disk").write_bytes(data)
    assert disks.content(tmp_path / "disk") is holds


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        (b"ok", []),
        (b"ok\0/data\0/run/cloud-volumes/vol", [(b"/data", b"/run/cloud-volumes/vol")]),
        (b"error\0no such disk", "no such disk"),
        (b"ok\0/data", "ended early"),
        (b"", "ended early"),
        (b"Traceback", "ended early"),
    ],
)
def test_what_the_child_says(output: bytes, wanted: object) -> None:
    found = volumes.outcome(output)
    assert found == wanted or (isinstance(found, str) and str(wanted) in found)
