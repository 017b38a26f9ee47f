"""Scratch space as a plan: which commands with which key, where, and what becomes of it when one fails."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from caa.errors import StateError
from podvm import scratch
from podvm.scratch import Options

KEY = bytes(range(64))
MIB = 1 << 20


class Programs:
    """Records commands and keys; `mapped` appears when the device is opened. `failing` is the command that fails."""

    def __init__(self, root: Path, failing: str = "", text: str = "it broke") -> None:
        self.lines: list[str] = []
        self.keys: list[bytes] = []
        self._root, self._failing, self._text = root, failing, text

    def __call__(self, command: Sequence[str], text: bytes) -> None:
        self.lines.append(" ".join(command))
        self.keys.append(text)
        if self._failing and self.lines[-1].startswith(self._failing):
            raise StateError(self._text)
        if "luksFormat" in command:
            (self._root / "run/podvm/scratch.header").write_bytes(b"header")
        if "open" in command:
            (self._root / "dev/mapper").mkdir(parents=True, exist_ok=True)
            with (self._root / "dev/mapper/scratch").open("wb") as file:
                file.truncate(300 * MIB)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """A VM whose root partition holds up the verity device, with a scratch partition and the worker's wish for it."""
    disk = tmp_path / "sys/devices/vda"
    partition(tmp_path, disk, name="vda2", label="root-x86-64", holds="dm-0")
    partition(tmp_path, disk, name="vda4", label="trusted_store")
    marker(tmp_path)
    return Options(root=tmp_path, key=lambda size: KEY[:size])


def marker(root: Path) -> None:
    (root / "run/peerpod").mkdir(parents=True, exist_ok=True)
    (root / "run/peerpod/scratch-space.marker").touch()


def partition(root: Path, disk: Path, *, name: str, label: str, holds: str = "") -> None:
    folder = disk / name
    (folder / "holders").mkdir(parents=True)
    (folder / "partition").write_text("1\n")
    (folder / "dev").write_text(f"254:{len(list(disk.iterdir()))}\n")
    (folder / "uevent").write_text(f"DEVTYPE=partition\nPARTNAME={label}\n")
    if holds:
        (folder / "holders" / holds).touch()
    (root / "sys/class/block").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/block" / name).symlink_to(folder)
    (root / "dev").mkdir(exist_ok=True)
    with (root / "dev" / name).open("wb") as file:
        file.truncate(300 * MIB)


def test_a_partition_that_the_kernel_has_no_name_for(options: Options, tmp_path: Path) -> None:
    """As systemd-repart adds one to a disk in use: only udev has read its name."""
    part = tmp_path / "sys/devices/vda/vda4"
    (part / "uevent").write_text("DEVTYPE=partition\n")
    udev = tmp_path / "run/udev/data"
    udev.mkdir(parents=True)
    (udev / f"b{(part / 'dev').read_text().strip()}").write_text("S:disk/x\nE:ID_PART_ENTRY_NAME=trusted_store\n")
    assert scratch.find(options) == tmp_path / "dev/vda4"


def test_the_plan(options: Options, tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    assert scratch.run(options, programs) == 0
    assert [line.split()[:2] for line in programs.lines] == [
        ["cryptsetup", "luksFormat"],
        ["cryptsetup", "open"],
        ["mkfs.ext4", "-q"],
        ["mount", "-t"],
    ]
    assert "--integrity hmac-sha256 --integrity-no-wipe" in programs.lines[0]
    assert all(f"--header {tmp_path}/run/podvm/scratch.header" in line for line in programs.lines[:2])
    assert programs.lines[3].endswith(f"{tmp_path}/dev/mapper/scratch {tmp_path}/run/kata-containers/image")
    assert programs.keys == [KEY, KEY, b"", b""]


def test_neither_key_nor_header_stays(options: Options, tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    scratch.run(options, programs)
    assert KEY.hex() not in " ".join(programs.lines)
    assert not (tmp_path / "run/podvm/scratch.header").exists()
    assert KEY not in (tmp_path / "dev/vda4").read_bytes()
    assert repr(KEY) not in repr(options)


@pytest.mark.parametrize("failing", ["cryptsetup luksFormat", "cryptsetup open", "mkfs.ext4", "mount"])
@pytest.mark.parametrize(("demanded", "status"), [(True, 1), (False, 0)])
def test_a_failure(
    options: Options, tmp_path: Path, *, failing: str, demanded: bool, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    if not demanded:
        (tmp_path / "run/peerpod/scratch-space.marker").unlink()
        options = Options(root=tmp_path, always=True, key=options.key)
    programs = Programs(tmp_path, failing)
    assert scratch.run(options, programs) == status
    assert "it broke" in caplog.text
    assert ("ENABLE_SCRATCH_SPACE demands it" in caplog.text) is demanded
    assert not (tmp_path / "run/podvm/scratch.header").exists()
    assert ("cryptsetup close scratch" in programs.lines) is (failing in ("mkfs.ext4", "mount"))


def test_who_asks_for_nothing_gets_nothing(options: Options, tmp_path: Path) -> None:
    (tmp_path / "run/peerpod/scratch-space.marker").unlink()
    programs = Programs(tmp_path)
    assert scratch.run(options, programs) == 0
    assert programs.lines == []


def test_without_integrity(tmp_path: Path, options: Options) -> None:
    programs = Programs(tmp_path)
    scratch.run(Options(root=tmp_path, integrity=False, key=options.key), programs)
    assert "--integrity" not in programs.lines[0]


def test_a_partition_that_is_too_small(options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "dev/vda4").open("wb") as file:
        file.truncate(12 * MIB)
    assert scratch.run(options, Programs(tmp_path)) == 1
    assert "has 12 MiB, at least 64 are needed: give the pod VM a larger root volume (ROOT_VOLUME_SIZE)" in caplog.text


def remove(root: Path, name: str) -> None:
    (root / "sys/class/block" / name).unlink()


def test_an_image_as_large_as_its_disk(options: Options, tmp_path: Path) -> None:
    remove(tmp_path, "vda4")
    with pytest.raises(StateError, match=r"no partition is labelled trusted_store; .* larger root volume"):
        scratch.find(options)


@pytest.mark.parametrize(
    ("own", "text"), [(False, r"no partition is \(1 such partitions are on disks that are not"), (True, "")]
)
def test_a_volume_with_such_a_label_is_left_alone(options: Options, tmp_path: Path, own: bool, text: str) -> None:
    partition(tmp_path, tmp_path / "sys/devices/vdb", name="vdb1", label="trusted_store")
    if own:
        assert scratch.find(options) == tmp_path / "dev/vda4"
        return
    remove(tmp_path, "vda4")
    with pytest.raises(StateError, match=text):
        scratch.find(options)


def test_two_partitions_of_the_own_disk(options: Options, tmp_path: Path) -> None:
    partition(tmp_path, tmp_path / "sys/devices/vda", name="vda5", label="trusted_store")
    with pytest.raises(StateError, match="more than one partition is labelled trusted_store"):
        scratch.find(options)


def test_a_mounted_partition_shows_the_own_disk_too(options: Options, tmp_path: Path) -> None:
    for holder in (tmp_path / "sys/devices/vda/vda2/holders").iterdir():
        holder.unlink()
    number = (tmp_path / "sys/devices/vda/vda2/dev").read_text().strip()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(f"22 1 {number} / / ro - ext4 /dev/root ro\n")
    assert scratch.find(options) == tmp_path / "dev/vda4"


@pytest.mark.parametrize("device", ["/dev/vda2", "/dev/nothing"])
def test_a_device_by_name(tmp_path: Path, options: Options, device: str) -> None:
    named = Options(root=tmp_path, device=device)
    if device == "/dev/vda2":
        assert scratch.find(named) == tmp_path / "dev/vda2"
        return
    with pytest.raises(StateError, match="there is no device /dev/nothing"):
        scratch.find(named)


@pytest.mark.parametrize("size", [70 * MIB, 4096 * 32768, 10 << 30, (10 << 30) + 12345])
def test_what_mkfs_reads_is_written_before(size: int) -> None:
    """Both ends, and the block of every copy of the superblock."""
    found = list(scratch.zeros(size))
    assert all(at % 4096 == 0 and length % 4096 == 0 and at + length <= size for at, length in found)
    assert found[0] == (0, MIB)
    copies = [at // (4096 * 32768) for at, length in found if length == 4096]
    groups = -(-size // (4096 * 32768))
    assert copies == [group for group in (1, 3, 5, 7, 9, 25, 27, 49, 81) if group < groups]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("Device /dev/vda4 is too small.", "larger root volume"),
        ("mkfs.ext4: No space left on device while writing", "larger root volume"),
        ("Cannot initialize device-mapper. Is dm_mod kernel module loaded?", "dm-crypt"),
        ("something else", "something else"),
    ],
)
def test_words_for_who_runs_pods(reason: str, text: str) -> None:
    assert text in scratch.explained(reason)


def test_no_log_has_a_key(options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    scratch.run(options, Programs(tmp_path, "mkfs"))
    assert KEY.hex() not in caplog.text
    assert repr(KEY) not in caplog.text
