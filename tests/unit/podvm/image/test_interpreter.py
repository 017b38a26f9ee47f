"""What of CPython and of our code goes into an image."""

import marshal
from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import interpreter
from podvm.image.tree import Tree


def test_bytecode_is_never_compared_with_a_source():
    code = interpreter.compiled(b"x = 1\n", "/usr/lib/x.pyc")
    assert code[4:8] == b"\1\0\0\0"  # PEP 552: a hash that is not checked
    assert marshal.loads(code[16:]).co_filename == "/usr/lib/x.pyc"
    assert code == interpreter.compiled(b"x = 1\n", "/usr/lib/x.pyc")


def test_our_packages_travel_whole_but_for_what_is_named(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", "b/data.binpb", "b/c.pyi", "image/d.py", "__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    tree = Tree()
    interpreter.add_sources(tree, tmp_path, to="lib/p", but=["image"])
    assert [path for path, entry in tree.entries() if entry.mode & 0o100000] == [
        "lib/p/a.pyc",
        "lib/p/b/c.pyc",
        "lib/p/b/data.binpb",
    ]


def test_a_program_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_program.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match="no_such_module"):
        interpreter.add(Tree(), interpreter.own(), roots=[tmp_path], programs=["broken_program"])
