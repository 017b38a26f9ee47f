"""Compiles the ends, the C relay and the Go proxy into `tests/bench/build`; what is newer than its sources stays."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = HERE / "build"
PROTO = ROOT / "caa" / "wire" / "proto" / "src"
MESSAGES = {"agent": "agent", "health": "agent", "oci": "agent", "csi": "agent", "network_types": "types"}


@dataclass(frozen=True)
class Programs:
    """Paths of what was compiled."""

    load: Path
    agent: Path
    c_relay: Path
    go_proxy: Path


def build() -> Programs:
    """Compile what is out of date; raises `CalledProcessError` with the compiler's words on the terminal."""
    OUT.mkdir(exist_ok=True)
    return Programs(
        load=_c("load"), agent=_c("agent"), c_relay=_c("relay", "-lssl", "-lcrypto"), go_proxy=_go_proxy()
    )  # fmt: skip


def build_agent() -> Path:
    """Compile the agent alone, for what compares nothing."""
    OUT.mkdir(exist_ok=True)
    return _c("agent")


def _is_fresh(target: Path, sources: Iterable[Path]) -> bool:
    return target.exists() and all(source.stat().st_mtime < target.stat().st_mtime for source in sources)


def _c(name: str, *libraries: str) -> Path:
    target, source = OUT / name, HERE / "c" / f"{name}.c"
    if not _is_fresh(target, [source, HERE / "c" / "wire.h"]):
        _run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source), *libraries)
    return target


def _go_proxy() -> Path:
    target, module = OUT / "proxy", OUT / "go"
    sources = [*(HERE / "go").iterdir(), *PROTO.glob("*.proto")]
    if not _is_fresh(target, sources):
        shutil.copytree(HERE / "go", module, dirs_exist_ok=True)
        _go_messages(module)
        _run("go", "build", "-trimpath", "-o", str(target), ".", cwd=module)
    return target


def _go_messages(module: Path) -> None:
    """Generate the Go messages from our own proto files, by the generator of the version that go.mod names."""
    plugin = OUT / "protoc-gen-go"
    _run("go", "build", "-o", str(plugin), "google.golang.org/protobuf/cmd/protoc-gen-go", cwd=module)
    places = [f"--go_opt=Mcaa/wire/proto/{name}.proto=proxy/pb/{package}" for name, package in MESSAGES.items()]
    _run(
        "protoc", f"--plugin=protoc-gen-go={plugin}", f"--go_out={module}", "--go_opt=module=proxy", *places,
        "--go_opt=Mgoogle/protobuf/empty.proto=google.golang.org/protobuf/types/known/emptypb",
        f"--proto_path=caa/wire/proto={PROTO}", f"--proto_path={PROTO}",
        *(f"caa/wire/proto/{name}.proto" for name in MESSAGES),
    )  # fmt: skip


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True)
