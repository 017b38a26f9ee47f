"""CPython and our code for the pod VM's root file system: made inside the build tree, with that tree's interpreter.

Needs nothing but the standard library, since the tree has nothing else. Its C libraries come as packages of the image.
"""

import argparse
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from podvm.image import interpreter
from podvm.image.foreign import Files
from podvm.image.interpreter import Python
from podvm.image.tree import Tree

_CODE = Path(__file__).parents[2]
_PROGRAMS = ("podvm.__main__", "podvm.cli", "podvm.forwarder")
_SEEN = ("caa/datapath", "caa/net", "caa/userdata", "caa/attest", "caa/model", "caa/config")
_STAND_IN = ("caa.testing.agent.daemon", "caa.testing.agent.options")
_AGENT = """#!/usr/bin/python3 -IS
# The stand-in agent, for tests: it isolates nothing. An image with the Kata agent has that in this place.
import asyncio
from caa.testing.agent.daemon import run
from caa.testing.agent.options import parse
asyncio.run(run(parse(["--server-addr", "unix:///run/kata-agent/agent.sock"])))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes before compression: the interpreter with its library, and our code."""

    python: int
    ours: int


def build(to: Path, *, stand_in: bool, packages: tuple[Path, ...], foreign: Files | None = None) -> Sizes:
    """Write the tree below `to`; `packages` are folders of Python packages beside the interpreter's own."""
    own = interpreter.own()
    together = (*own.packages, *packages)
    python = Python(program=own.program, packages=together, with_libraries=False, foreign=foreign)
    tree = Tree()
    programs = (*_PROGRAMS, *(_STAND_IN if stand_in else ()))
    interpreter.add(tree, python, roots=[_CODE], programs=programs)
    size = tree.size()
    _add_code(tree, python, stand_in=stand_in)
    tree.write(to)
    return Sizes(python=size, ours=tree.size() - size)


def _add_code(tree: Tree, python: Python, *, stand_in: bool) -> None:
    for folder in _SEEN if not stand_in else ("caa",):
        if (_CODE / folder).is_dir():
            interpreter.add_sources(tree, _CODE / folder, to=f"{python.library}/{folder}")
    if not stand_in:
        for name in ("__init__", "errors"):
            place = f"{python.library}/caa/{name}.pyc"
            tree.file(place, interpreter.compiled((_CODE / "caa" / f"{name}.py").read_bytes(), f"/{place}"))
    interpreter.add_sources(tree, _CODE / "podvm", to=f"{python.library}/podvm", but=["image"])
    if stand_in:
        tree.file("usr/local/bin/kata-agent", _AGENT.encode(), mode=0o755)


def main(argv: list[str]) -> None:
    """`python3 -m podvm.image.guest DIRECTORY [options]`, as the builder calls it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--packages", type=Path, action="append", default=[])
    parser.add_argument("--foreign", nargs=2, metavar=("FOLDER", "TRIPLET"))
    given = parser.parse_args(argv)
    here = str(sysconfig.get_config_var("MULTIARCH"))
    foreign = Files(Path(given.foreign[0]), here, given.foreign[1]) if given.foreign else None
    sizes = build(given.directory, stand_in=given.stand_in, packages=tuple(given.packages), foreign=foreign)
    sys.stdout.write(f"{sizes.python} {sizes.ours}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
