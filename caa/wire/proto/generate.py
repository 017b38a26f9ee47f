"""Compile `src/**/*.proto` to `kata.binpb` and the type stubs; a developer's tool, never imported in production.

Run as `python -m caa.wire.proto.generate`. Needs `protoc` (3.15 or later) and `protoc-gen-mypy` (mypy-protobuf, in the
extra `dev`).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

PACKAGE = Path(__file__).parent
SOURCES = PACKAGE / "src"
# A stub module that also shows the names of others, as its runtime module does.
REEXPORTS = MappingProxyType(
    {
        "agent": ("network_types", "csi", "oci"),
        "ttrpc": ("google_any", "google_empty", "google_status"),
    }
)
# Module names that would hide something of the standard library or of google's own package.
RENAMED = MappingProxyType(
    {
        "google/protobuf/any": "google_any",
        "google/protobuf/empty": "google_empty",
        "google/rpc/status": "google_status",
    }
)


def generate(target: Path) -> None:
    """Write `kata.binpb` and one `.pyi` a proto file into `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        _protoc(Path(scratch))
        (target / "kata.binpb").write_bytes((Path(scratch) / "kata.binpb").read_bytes())
        for module, text in _stubs(Path(scratch)):
            (target / f"{module}.pyi").write_text(text)


def _protoc(scratch: Path) -> None:
    # The virtual path gives our files names of their own; google's keep theirs.
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    subprocess.run(
        [
            "protoc",
            f"--proto_path=caa/wire/proto={SOURCES}",
            f"--proto_path={SOURCES}",
            "--include_imports",
            f"--descriptor_set_out={scratch / 'kata.binpb'}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--mypy_out=quiet:{scratch}",
            *_names(),
        ],
        check=True,
    )


def _names() -> list[str]:
    paths = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    return [path if path.startswith("google/") else f"caa/wire/proto/{path}" for path in paths]


def _stubs(scratch: Path) -> Iterator[tuple[str, str]]:
    for name in (name.removesuffix(".proto") for name in _names()):
        module = RENAMED.get(name, Path(name).name)
        yield module, _own_imports((scratch / f"{name}_pb2.pyi").read_text()) + _star_imports(module)


def _own_imports(text: str) -> str:
    """Point the stub's imports at our modules: they are not called `_pb2`, and google's come from our pool too."""
    for name, module in RENAMED.items():
        folder, _, file = name.rpartition("/")
        imported = f"from {folder.replace('/', '.')} import {file}_pb2 as"
        text = text.replace(imported, f"from caa.wire.proto import {module} as")
    return re.sub(r"^(from caa\.wire\.proto import \w+)_pb2 as", r"\1 as", text, flags=re.MULTILINE)


def _star_imports(module: str) -> str:
    lines = [f"from caa.wire.proto.{other} import *\n" for other in REEXPORTS.get(module, ())]
    return "\n" + "".join(lines) if lines else ""


if __name__ == "__main__":
    generate(PACKAGE)
