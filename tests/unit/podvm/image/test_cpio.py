"""The archive is what `cpio` reads, and the same for the same tree."""

import subprocess

import pytest

from podvm.image import cpio
from podvm.image.tree import Tree


def small() -> Tree:
    tree = Tree()
    tree.file("bin/x", b"hello", mode=0o755)
    tree.link("bin/y", "x")
    tree.character_device("dev/console", (5, 1))
    return tree


def test_fields_of_a_record():
    whole = cpio.archive(small())
    at = whole.index(b"bin/x\0") - 110
    assert whole[at : at + 6] == b"070701"
    fields = [int(whole[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
    assert fields == [2, 0o100755, 0, 0, 1, 0, 5, 0, 0, 0, 0, 6, 0]
    assert whole[at + 116 : at + 121] == b"hello"
    assert len(whole) % 512 == 0


def test_the_order_of_making_does_not_matter():
    other = Tree()
    other.character_device("dev/console", (5, 1))
    other.link("bin/y", "x")
    other.file("bin/x", b"hello", mode=0o755)
    assert cpio.archive(other) == cpio.archive(small())


@pytest.mark.needs("busybox")
def test_another_reader_finds_the_same():
    listing = subprocess.run(
        ["busybox", "cpio", "-tv"], input=cpio.archive(small()), capture_output=True, check=True
    ).stdout.decode()
    assert [line.split()[-1] for line in listing.splitlines()] == ["bin", "bin/x", "x", "dev", "dev/console"]
    assert "crw-------" in listing
