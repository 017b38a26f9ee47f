"""The tree of an image: parents, order, conflicts."""

import stat

import pytest

from caa.errors import InvalidInput
from podvm.image.tree import Tree


def test_parents_appear_and_come_first():
    tree = Tree()
    tree.file("/usr/lib/b", b"1")
    tree.link("usr/lib-a", "b")
    assert [path for path, _ in tree.entries()] == ["usr", "usr/lib", "usr/lib/b", "usr/lib-a"]
    assert stat.S_ISDIR(dict(tree.entries())["usr/lib"].mode)
    assert "usr/lib/b" in tree
    assert "/usr" in tree


def test_the_same_twice_is_once():
    tree = Tree()
    tree.file("a", b"1")
    tree.file("a", b"1")
    assert tree.size() == 1


def test_another_content_is_refused():
    tree = Tree()
    tree.file("a", b"1")
    with pytest.raises(InvalidInput, match="a would be there twice"):
        tree.file("a", b"2")


def test_a_file_is_no_folder():
    tree = Tree()
    tree.file("a", b"1")
    with pytest.raises(InvalidInput, match="a/b cannot be in a"):
        tree.file("a/b", b"2")


@pytest.mark.parametrize("path", ["", "/", "a/../../etc"])
def test_no_path_leaves_the_image(path):
    with pytest.raises(InvalidInput, match="is no path in an image"):
        Tree().file(path, b"")


def test_the_mode_of_a_folder_can_be_set_later():
    tree = Tree()
    tree.file("tmp/a", b"")
    tree.folder("tmp", 0o1777)
    assert dict(tree.entries())["tmp"].mode == stat.S_IFDIR | 0o1777
