"""CPython for the guest: the interpreter that runs the builder, and of its library what the guest imports.

Modules are found by importing the guest's programs and looking; modules that are imported late are named here. They
travel compiled, without sources and without timestamps: an interpreter in an emulated machine starts twice as fast.
"""

import importlib.util
import json
import marshal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError
from podvm.image import elf
from podvm.image.foreign import Files
from podvm.image.tree import Tree

# What `-m` imports, and what the standard library imports inside functions that the guest calls.
_LATE = (
    "runpy", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig", "stringprep",
    "unicodedata", "concurrent.futures.thread", "traceback", "_strptime", "getopt", "hashlib", "hmac",
)  # fmt: skip
_OURS = ("caa", "podvm")
_UNCHECKED = (1).to_bytes(4, "little")
_LOOK = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
sys.modules["rich"] = None
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if name != "__main__"}
print(json.dumps({name: file for name, file in files.items() if file}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """An interpreter: its program, the folders where its packages are, whether its C libraries travel with it.

    `foreign` has the files of another architecture that travel in place of those here.
    """

    program: Path
    packages: tuple[Path, ...]
    with_libraries: bool = True
    foreign: Files | None = None

    @property
    def version(self) -> str:
        """As in `lib/python3.11`."""
        return f"{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def library(self) -> str:
        """Where the guest has everything that can be imported."""
        return f"usr/lib/python{self.version}"

    def travelling(self, file: Path) -> Path:
        """The file that goes into the guest for one of this interpreter's own."""
        return file if self.foreign is None else self.foreign.of(file)


def own() -> Python:
    """The interpreter that runs this, with its packages."""
    packages = {Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
    return Python(program=_outside_of_environment(), packages=tuple(sorted(packages)))


def _outside_of_environment() -> Path:
    """The program itself: a virtual environment only links to it."""
    return Path(sys.executable).resolve()


def add(tree: Tree, python: Python, *, roots: Sequence[Path], programs: Iterable[str]) -> list[str]:
    """Put the interpreter and every module that `programs` import into the tree; the modules' names.

    `roots` are the folders of our own packages, which are left out: `add_sources` adds them, whole.
    """
    found = _imported(python, roots, programs=[*programs, *_LATE])
    _add_program(tree, python, file=python.travelling(python.program), to=f"usr/bin/python{python.version}")
    tree.link("usr/bin/python3", f"python{python.version}")
    tree.folder(f"{python.library}/lib-dynload")  # the interpreter complains when it is missing
    names = sorted(name for name in found if name.split(".")[0] not in _OURS)
    for name in names:
        file = python.travelling(Path(found[name]))
        to = _place(python.library, name, file=file)
        if file.suffix == ".py":
            tree.file(f"{to}c", compiled(file.read_bytes(), f"/{to}", optimize=2))
        else:
            _add_program(tree, python, file=file, to=to)
    return names


def add_sources(tree: Tree, folder: Path, *, to: str, but: Iterable[str] = ()) -> None:
    """Put a package of ours into the tree, compiled; other files as they are. `but` names sub-folders to leave out."""
    left_out = {folder / name for name in but}
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or "__pycache__" in file.parts or left_out & {file, *file.parents}:
            continue
        place = f"{to}/{file.relative_to(folder)}"
        if file.suffix == ".py":
            tree.file(f"{place}c", compiled(file.read_bytes(), f"/{place}"))
        elif file.suffix not in (".pyi", ".proto"):
            tree.file(place, file.read_bytes())


def compiled(source: bytes, path: str, *, optimize: int = 0) -> bytes:
    """A module as bytecode that is never compared with its source (PEP 552, an unchecked hash)."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=optimize)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(source) + marshal.dumps(code)


def _imported(python: Python, roots: Sequence[Path], *, programs: Iterable[str]) -> dict[str, str]:
    """The file of every module that a fresh interpreter holds after importing `programs`."""
    paths = json.dumps([str(path) for path in (*roots, *python.packages)])
    command = [str(python.program), "-I", "-S", "-c", _LOOK, paths, json.dumps(list(programs))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"the guest's programs cannot be imported: {done.stderr.strip()[-300:]}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _place(library: str, name: str, *, file: Path) -> str:
    """Where a module goes: packages of others stand beside the standard library, so that `-S` finds them too."""
    parts = name.split(".")
    if file.name.startswith("__init__."):
        return f"{library}/{'/'.join(parts)}/{file.name}"
    return f"{library}/{'/'.join([*parts[:-1], file.name])}"


def _add_program(tree: Tree, python: Python, *, file: Path, to: str) -> None:
    # Debian's programs are stripped already, and strip here knows no other architecture.
    tree.file(to, elf.stripped(file) if python.foreign is None else file.read_bytes(), mode=0o755)
    if python.with_libraries:
        elf.add_libraries(tree, file)
