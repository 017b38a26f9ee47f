"""Programs of the build machine and the shared libraries that they need."""

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from caa.errors import ConfigError
from podvm.image.tree import Tree

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBRARY = re.compile(r"(?:=>\s+)?(/\S+)\s+\(0x")


def find(program: str, package: str) -> Path:
    """Where a program is; raises `ConfigError` that names the Debian package to install."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ConfigError(f"the program {program} is missing: apt-get install {package}")
    return Path(found)


def add(tree: Tree, file: Path, *, to: str) -> None:
    """Put a program and its libraries into the tree, each library under the path where the loader looks for it."""
    tree.file(to, stripped(file), mode=0o755)
    add_libraries(tree, file)


def add_libraries(tree: Tree, file: Path) -> None:
    """Put the libraries of a program or an extension module into the tree; a static one has none."""
    for library in libraries(file):
        tree.file(str(library), stripped(library), mode=0o755)


def stripped(file: Path) -> bytes:
    """The file without symbols and debugging information, which may be four fifths of it."""
    with TemporaryDirectory(prefix="podvm-image-") as folder:
        small = Path(folder, "small")
        done = subprocess.run(["strip", "-o", small, file], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"{file} cannot be stripped: {done.stderr.strip()[-300:]}")
        return small.read_bytes()


def libraries(file: Path) -> list[Path]:
    """What the loader would load for `file`, the loader included. `file` is run by `ldd`: trusted files only."""
    done = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    if "not a dynamic executable" in done.stdout + done.stderr or "statically linked" in done.stdout:
        return []
    if done.returncode or "not found" in done.stdout:
        raise ConfigError(f"the libraries of {file} cannot be found: {(done.stderr or done.stdout).strip()[:300]}")
    return [Path(path) for path in _LIBRARY.findall(done.stdout)]
