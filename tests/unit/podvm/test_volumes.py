"""Which mount points have to go, from the kernel's table."""

from podvm import volumes

TABLE = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:30 / /run/cloud-volumes/a rw - ext4 /dev/sda rw
41 40 0:31 / /run/cloud-volumes/a/in\\040side rw - tmpfs tmpfs rw
42 22 0:32 / /run/cloud-volumes2 rw - tmpfs tmpfs rw
43 22 0:33 / /run/cloud-volumes/b rw - xfs /dev/sdb rw
broken line
"""


def test_deepest_first_and_nothing_else() -> None:
    assert volumes.mounted_under("/run/cloud-volumes", TABLE) == [
        "/run/cloud-volumes/b",
        "/run/cloud-volumes/a/in side",
        "/run/cloud-volumes/a",
    ]
    assert volumes.mounted_under("/run/none", TABLE) == []
