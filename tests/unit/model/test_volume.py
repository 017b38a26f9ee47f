"""Which volumes of a pod are refused: they come from files that others write."""

from dataclasses import replace

import pytest

from caa.errors import InvalidInput
from caa.model.volume import MOST, Volume, checked

PATH = "/var/lib/kubelet/pods/6d3a0b52-1f0e-4c55-9d84-0d6e6f1f4f10/volumes/kubernetes.io~csi/pvc-1/mount"
ONE = Volume(source=PATH, disk="vol-0123456789abcdef0")


def numbered(count: int) -> list[Volume]:
    return [Volume(source=f"/volumes/{number}", disk=f"disk-{number}") for number in range(count)]


@pytest.mark.parametrize(
    "volumes",
    [
        [],
        [ONE],
        [replace(ONE, fs_type="xfs", fs_group=0, key="kbs:///default/keys/data")],
        [
            replace(
                ONE, disk="/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d", key="sealed.x.y.z"
            )
        ],
        numbered(MOST),
    ],
)
def test_these_are_taken_as_they_are(volumes: list[Volume]) -> None:
    assert checked(volumes) == tuple(volumes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        *[
            ({"source": path}, "no absolute path")
            for path in ("", "/", "data", "/a/../etc", "/a//b", "/a/", "/a/./b", "/a\0b", "/a\nb", "/" + "a" * 1024)
        ],
        *[({"disk": disk}, "no id of a disk") for disk in ("", "a b", "a\nb", "ä", "\x1b[0m", "d" * 513)],
        *[({"fs_type": kind}, "not one of ext4, ext3, xfs") for kind in ("", "btrfs", "ext4 -o", "EXT4", "vfat")],
        ({"fs_group": -1}, "fs_group -1"),
        ({"fs_group": 2**32 - 1}, "fs_group 4294967295"),
        *[
            ({"key": key}, "the key has to be the URI")
            for key in ("file:///etc/shadow", "secret", "kbs:///a b", "kbs://" + "k" * 512)
        ],
    ],
)
def test_these_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidInput, match="the pod's volume at ") as caught:
        checked(
            [ONE, replace(ONE, source="/other", disk="other"), replace(ONE, **{"source": "/x", "disk": "x", **changes})]
        )
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_key_is_never_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        checked([replace(ONE, key="hunter2")])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("what", ["source", "disk"])
def test_each_once(what: str) -> None:
    two = [ONE, replace(ONE, **{"source": "/other", "disk": "other", what: getattr(ONE, what)})]
    with pytest.raises(InvalidInput, match=f"two volumes of the pod have the same {what}"):
        checked(two)


def test_not_too_many() -> None:
    with pytest.raises(InvalidInput, match=f"{MOST + 1} volumes, allowed are {MOST}"):
        checked(numbered(MOST + 1))
