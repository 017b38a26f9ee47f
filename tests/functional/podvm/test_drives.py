"""Config drives as image files, made by genisoimage and mkfs.vfat; broken and hostile ones are refused."""

import io
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from caa.errors import CaaError, InvalidInput, Unavailable
from podvm.clouds import fat, iso9660
from podvm.clouds.machine import Machine
from podvm.clouds.nocloud import ConfigDrive
from podvm.clouds.volume import Volume, VolumeError

DOCUMENT = b"#cloud-config\n# " + b"x" * 5000 + b"\nwrite_files: []\n"
NAMES = {"cidata": "user-data", "config-2": "openstack/latest/user_data"}
pytestmark = [pytest.mark.needs("genisoimage"), pytest.mark.needs("mkfs.vfat"), pytest.mark.needs("mcopy")]


def tree(folder: Path, label: str, document: bytes = DOCUMENT) -> Path:
    """The files of a drive, with some others around."""
    file = folder / "tree" / NAMES[label.lower()]
    file.parent.mkdir(parents=True)
    file.write_bytes(document)
    (file.parent / "meta-data").write_text("local-hostname: pod\n")
    for number in range(60):
        (file.parent / f"a rather long name of another file {number}").write_text("x")
    return folder / "tree"


def iso(*options: str) -> Callable[[Path, Path, str], None]:
    def make(image: Path, source: Path, label: str) -> None:
        line = ["genisoimage", "-quiet", "-output", image, "-volid", label, *options, source]
        subprocess.run(line, check=True, capture_output=True)

    return make


def vfat(bits: int, mebibytes: int) -> Callable[[Path, Path, str], None]:
    def make(image: Path, source: Path, label: str) -> None:
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        environ = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "PATH": os.environ["PATH"] + ":/usr/sbin"}
        for line in (
            ["mkfs.vfat", "-F", str(bits), "-n", label, image],
            ["mcopy", "-s", "-i", image, *sorted(source.iterdir()), "::/"],
        ):
            subprocess.run(line, check=True, capture_output=True, env=environ)

    return make


MAKERS = {
    "rock-ridge": iso("-rational-rock"), "joliet": iso("-joliet"), "both": iso("-joliet", "-rock"),
    "relaxed": iso("-relaxed-filenames", "-allow-lowercase", "-l"),
    "fat12": vfat(12, 2), "fat16": vfat(16, 20), "fat32": vfat(32, 64),
}  # fmt: skip


def machine(root: Path, *images: Path) -> Machine:
    """A machine whose disks are these image files."""
    (root / "dev").mkdir(exist_ok=True)
    for number, image in enumerate(images):
        block = root / "sys/class/block" / f"vd{chr(98 + number)}"
        block.mkdir(parents=True)
        (block / "size").write_text(f"{image.stat().st_size // 512}\n")
        (root / "dev" / block.name).symlink_to(image)
    return Machine(root)


# Names of several folders need Rock Ridge, Joliet or VFAT.
KINDS = [(kind, label) for kind in MAKERS for label in ("cidata", "CIDATA", "config-2")]
KINDS.remove(("relaxed", "config-2"))


@pytest.mark.parametrize(("kind", "label"), KINDS)
def test_the_document_is_read(tmp_path: Path, kind: str, label: str) -> None:
    image = tmp_path / "image"
    MAKERS[kind](image, tree(tmp_path, label), label)
    drive = ConfigDrive(machine(tmp_path, image))
    assert drive.present()
    assert drive.fetch(1.0) == DOCUMENT


@pytest.mark.parametrize("kind", ["both", "fat16"])
def test_other_labels_are_left_alone(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    MAKERS[kind](image, tree(tmp_path, "cidata"), "DATA")
    assert not ConfigDrive(machine(tmp_path, image)).present()


@pytest.mark.parametrize("kind", ["both", "fat16"])
def test_a_drive_without_the_file(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    MAKERS[kind](image, tree(tmp_path, "config-2"), "cidata")
    with pytest.raises(InvalidInput, match="vdb has no file user-data"):
        ConfigDrive(machine(tmp_path, image)).fetch(1.0)


def test_two_drives_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "image"
    MAKERS["both"](image, tree(tmp_path, "cidata"), "cidata")
    drive = ConfigDrive(machine(tmp_path, image, image))
    with pytest.raises(InvalidInput, match=r"more than one disk .*vdb, .*vdc"):
        drive.fetch(1.0)


def test_what_is_no_drive(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    here = machine(tmp_path, disk, tmp_path / "disk")
    (tmp_path / "sys/class/block/sr0").mkdir()
    (tmp_path / "sys/class/block/sr0/size").write_text("0\n")
    (tmp_path / "sys/class/block/loop0").mkdir()
    assert not ConfigDrive(here).present()
    with pytest.raises(Unavailable):
        ConfigDrive(here).fetch(1.0)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    image = tmp_path / "image"
    MAKERS["both"](image, tree(tmp_path, "cidata", b"#" * ((16 << 20) + 1)), "cidata")
    with pytest.raises(InvalidInput, match="larger than 16777216 bytes"):
        ConfigDrive(machine(tmp_path, image)).fetch(1.0)


@pytest.mark.parametrize("kind", ["both", "fat12", "fat16"])
def test_a_drive_that_is_cut_off(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    MAKERS[kind](image, tree(tmp_path, "cidata"), "cidata")
    whole = image.read_bytes()
    for size in (0, 100, 512, 4096, 33000, 40000, len(whole) // 2):
        image.write_bytes(whole[:size])
        drive = ConfigDrive(Machine(tmp_path) if size else machine(tmp_path, image))
        try:
            assert drive.fetch(1.0) == DOCUMENT
        except CaaError:
            continue


@pytest.mark.parametrize("kind", ["both", "joliet", "fat12", "fat16", "fat32"])
def test_any_damage_ends_in_an_error_or_a_document(tmp_path: Path, kind: str) -> None:
    """Never a crash, an endless loop or a large read: every pointer of the image comes from outside."""
    image = tmp_path / "image"
    MAKERS[kind](image, tree(tmp_path, "cidata"), "cidata")
    whole = image.read_bytes()
    used = [at for at in range(min(len(whole), 1 << 20)) if whole[at]]
    dice = random.Random(7)
    label, read = (fat.label, fat.read) if kind.startswith("fat") else (iso9660.label, iso9660.read)
    for _ in range(60 if len(whole) < 32 << 20 else 10):
        broken = bytearray(whole)
        for _ in range(8):
            broken[dice.choice(used[:3000])] = dice.randrange(256)
        try:
            volume = Volume(io.BytesIO(broken))
            label(volume)
            found = read(volume, "user-data")
        except VolumeError:
            continue
        assert found is None or len(found) <= 16 << 20
