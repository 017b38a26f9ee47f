"""`attach-volumes`, the forwarder's child: finds the disks of a container's volumes, formats blank ones, mounts them.

Standard input is the annotation that the worker puts on CreateContainer, a JSON object of volumes by name. Standard
output is "ok" and then mount point and new source of each volume, or "error" and a sentence, separated by NUL.
A disk that holds anything but the file system asked for is never formatted and never mounted.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caa.errors import CaaError, DeadlineExceeded, InvalidInput, StateError
from caa.userdata.fields import Fields
from podvm import cdh, disks, volumes
from podvm.clock import Clock
from podvm.disks import Content, Wanted

_FILE_SYSTEMS = ("ext4", "ext3", "xfs")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_PLACE = "volumes annotation"
_DISK_SECONDS = 90.0  # for a disk that is attached after the VM has started (AWS: seconds)
_FORMAT_SECONDS = 600.0
_HUB_SECONDS = 300.0  # attestation, the key, and luksFormat
_PAUSE = 0.2
_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_KEYS = ("kbs://", "sealed.")  # a `file://` key would be one that the host knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume of the annotation. `key` is the URI of the key of an encrypted one, "" for a plain one."""

    name: str
    mount_point: str
    fs_type: str
    disk: Wanted
    fs_group: int | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Where things are in the pod VM; tests put others in."""

    root: Path = Path(volumes.ROOT)
    hub: Path = cdh.SOCKET
    devices: Path = Path("/")
    clock: Clock = field(default_factory=Clock)


def parse(text: str) -> list[Volume]:
    """The volumes of an annotation. It comes from outside the VM. Raises `InvalidInput`, naming volume and field."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(f"the {_PLACE} is not JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"the {_PLACE} is not a JSON object")
    fields = Fields(document, _PLACE)
    return [_volume(name, fields.part(name)) for name in document]


def _volume(name: str, fields: Fields) -> Volume:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"the {_PLACE} has a volume called {name[:80]!r}: letters, digits, dots and dashes are allowed"
        )
    mount_point, kind = fields.text("mount_point"), fields.text("fs_type") or "ext4"
    if not mount_point.startswith("/") or ".." in mount_point.split("/") or "\0" in mount_point:
        raise fields.wrong("mount_point", "an absolute path")
    if kind not in _FILE_SYSTEMS:
        raise fields.wrong("fs_type", ", ".join(_FILE_SYSTEMS))
    disk = Wanted(fields.text("disk_id"), _optional_number(fields, "lun"))
    if not disk.disk_id and disk.lun is None:
        raise fields.wrong("disk_id", "given, or lun")
    group = _optional_number(fields, "fs_group")
    return Volume(
        name=name, mount_point=mount_point, fs_type=kind, disk=disk, fs_group=group, key=_key(fields)
    )  # fmt: skip


def _optional_number(fields: Fields, key: str) -> int | None:
    """A number, which the worker may write as text; None when it is missing."""
    return None if fields.empty(key) else int(fields.text(key)) if fields.digits(key) else fields.number(key)


def _key(fields: Fields) -> str:
    kind, key = fields.text("encrypt_type").lower(), fields.text("key_id")
    if kind not in ("", "luks2"):
        raise fields.wrong("encrypt_type", "luks2, or missing")
    if not kind:
        if key:
            raise fields.wrong("encrypt_type", "luks2 where there is a key_id")
        return ""
    if not key.startswith(_KEYS):
        raise fields.wrong("key_id", "the URI of a key, kbs:///... or sealed...., for an encrypted volume")
    return key


def attach(found: Sequence[Volume], guest: Guest) -> list[tuple[str, str]]:
    """Mount every volume below the guest's root; (mount point, new source) of each. Twice is once.

    All or nothing for the container: what an earlier container has mounted stays. Raises a `CaaError`.
    """
    guest.root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _one_at_a_time(guest.root):
        return [(volume.mount_point, str(_attach(volume, guest))) for volume in found]


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Two containers with the same volume start at the same time."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _attach(volume: Volume, guest: Guest) -> Path:
    place = guest.root / volume.name
    if _is_mounted(place):
        return place
    device = _await_disk(volume, guest)
    _refuse_in_use(device, volume)
    holds = disks.content(device)
    place.mkdir(mode=0o755, exist_ok=True)
    if volume.key:
        _mount_encrypted(volume, device, place=place, holds=holds, hub=guest.hub)
    else:
        _mount_plain(volume, device, place=place, holds=holds)
    if volume.fs_group is not None:
        give_to_group(place, volume.fs_group)
    return place


def _is_mounted(place: Path) -> bool:
    table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return str(place) in volumes.mounted_under(str(place), table)


def _await_disk(volume: Volume, guest: Guest) -> Path:
    end = guest.clock.now() + _DISK_SECONDS
    while (device := disks.find(volume.disk, guest.devices)) is None:
        if guest.clock.now() >= end:
            what = volume.disk.disk_id or f"LUN {volume.disk.lun}"
            raise DeadlineExceeded(
                f"volume {volume.name}: no disk {what} within {_DISK_SECONDS:g} s; is it attached to this pod VM?"
            )
        guest.clock.sleep(_PAUSE)
    return device


def _refuse_in_use(device: Path, volume: Volume) -> None:
    """The VM's own disks are never a volume."""
    number = device.stat().st_rdev
    device_id = f"{os.major(number)}:{os.minor(number)}"
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    holders = Path("/sys/dev/block", device_id, "holders")
    if any(line.split(" ")[2] == device_id for line in mounts) or (holders.is_dir() and any(holders.iterdir())):
        raise InvalidInput(f"volume {volume.name}: the disk {device} is in use already")


def _mount_encrypted(volume: Volume, device: Path, *, place: Path, holds: Content, hub: Path) -> None:
    if holds not in (Content.BLANK, Content.LUKS2):
        raise InvalidInput(
            f"volume {volume.name}: the disk {device} holds {holds}, not LUKS2: neither used nor formatted"
        )
    options = {
        "devicePath": str(device),
        "sourceType": "empty" if holds is Content.BLANK else "encrypted",
        "targetType": "fileSystem",
        "encryptionType": "luks2",
        "filesystemType": volume.fs_type,
        "key": volume.key,
        "mapperName": f"{volumes.MAPPER}{volume.name}",
    }
    cdh.secure_mount(options, str(place), path=hub, seconds=_HUB_SECONDS)
    if not _is_mounted(place):
        raise StateError(f"volume {volume.name}: the Confidential Data Hub said it is mounted, and it is not")


def _mount_plain(volume: Volume, device: Path, *, place: Path, holds: Content) -> None:
    kind = volume.fs_type
    if holds is Content.BLANK:
        _run(mkfs(kind, device), what=f"volume {volume.name}: {device} cannot be formatted as {kind}")
    elif holds != kind and not (holds is Content.EXT3 and kind == "ext4"):
        raise InvalidInput(
            f"volume {volume.name}: the disk {device} holds {holds}, asked for is {kind}; it is not formatted"
        )
    _run(
        ["mount", "-t", kind, "-o", "nodev", "--", str(device), str(place)],
        what=f"volume {volume.name}: {device} cannot be mounted",
    )


def mkfs(kind: str, device: Path) -> list[str]:
    """The command that formats a whole, blank disk; ext journals are initialised later, on demand."""
    if kind == "xfs":
        return ["mkfs.xfs", "-q", str(device)]
    return [f"mkfs.{kind}", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(device)]


def _run(command: list[str], *, what: str) -> None:
    program = shutil.which(command[0], path=_PATHS)
    if program is None:
        raise StateError(f"{what}: the image has no program {command[0]}")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
            check=False,
            env={"PATH": _PATHS},
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{what} within {_FORMAT_SECONDS:g} s") from None
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-300:]
        raise StateError(f"{what}: {reason or f'status {done.returncode}'}")


def give_to_group(place: Path, group: int) -> None:
    """What the kubelet does for fsGroup: everything belongs to the group, which may do what the owner may.

    Only when the root of the volume does not belong to it yet, which is `OnRootMismatch`. Links are not followed.
    """
    if place.stat().st_gid == group:
        return
    for folder, _folders, files in os.walk(place, topdown=False):
        for entry in (*(Path(folder, name) for name in files), Path(folder)):
            mode = entry.lstat().st_mode
            os.chown(entry, -1, group, follow_symlinks=False)
            if not entry.is_symlink():
                entry.chmod(mode & 0o7777 | (0o2770 if entry.is_dir() else 0o660))


def main() -> int:
    """Read the annotation, attach, say how it went."""
    try:
        moved = attach(parse(sys.stdin.read()), Guest())
        words = ["ok", *(word for pair in moved for word in pair)]
    except (CaaError, OSError) as error:
        words = ["error", str(error)]
    sys.stdout.write("\0".join(words))
    return 0
