"""Debian's cloud kernel: taken from its package without installing it; boot file and modules for an initramfs."""

import re
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import ConfigError, Unavailable
from podvm.image.tree import Tree

_META = "linux-image-cloud-amd64"
_DEPENDS = re.compile(r"^Depends: (linux-image-\S+)", re.MULTILINE)
_UNPACK = (
    (b"\x02\x21\x4c\x18", ("lz4", "-dc")),
    (b"\xfd7zXZ\0", ("xz", "-dc")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dc")),
    (b"\x1f\x8b", ("gzip", "-dc")),
)
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package: `root` holds `boot` and `lib/modules/<release>`."""

    root: Path
    release: str
    package: str
    _by_name: dict[str, Path] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for file in sorted(self._modules().rglob("*.ko*")):
            self._by_name[_normal(file.name.split(".ko")[0])] = file

    def vmlinux(self) -> bytes:
        """The kernel unpacked, which QEMU boots by its PVH entry: no time is lost on unpacking it in the guest."""
        image = (self.root / "boot" / f"vmlinuz-{self.release}").read_bytes()
        return _unpacked(_payload(image))

    def in_load_order(self, names: Iterable[str]) -> list[str]:
        """The modules and all that they need, each after what it needs; built-in ones are left out."""
        builtin = (self._modules() / "modules.builtin").read_text().splitlines()
        there = {_normal(Path(line).name.removesuffix(".ko")) for line in builtin}
        order: dict[str, None] = {}
        for name in names:
            self._visit(_normal(name), there, order=order)
        return list(order)

    def module(self, name: str) -> bytes:
        """The module's file, unpacked."""
        data = self._by_name[name].read_bytes()
        return data if data[:4] == b"\x7fELF" else _unpacked(data)

    def add_modules(self, tree: Tree, names: Iterable[str]) -> list[str]:
        """Put modules and what they need into the tree, for `insmod` and `modprobe`; their load order."""
        order = self.in_load_order(names)
        folder = f"lib/modules/{self.release}"
        needs, aliases = [], []
        for name in order:
            data = self.module(name)
            tree.file(f"{folder}/{name}.ko", data)
            needs.append(f"{name}.ko: {' '.join(f'{one}.ko' for one in reversed(self._all_needed(name)))}")
            aliases += [f"alias {_normal(alias)} {name}" for alias in _info(data, "alias")]
        tree.file(f"{folder}/modules.dep", ("\n".join(needs) + "\n").encode())
        tree.file(f"{folder}/modules.alias", ("\n".join(aliases) + "\n").encode())
        return order

    def _visit(self, name: str, there: set[str], *, order: dict[str, None]) -> None:
        if name in there or name in order:
            return
        if name not in self._by_name:
            raise ConfigError(f"the kernel {self.release} has no module {name}")
        for needed in self._needed(name):
            self._visit(needed, there, order=order)
        order[name] = None

    def _needed(self, name: str) -> list[str]:
        return [_normal(one) for line in _info(self.module(name), "depends") for one in line.split(",") if one]

    def _all_needed(self, name: str) -> list[str]:
        return self.in_load_order([name])[:-1]

    def _modules(self) -> Path:
        return self.root / "lib" / "modules" / self.release


def unpack(package: Path, into: Path) -> Kernel:
    """Unpack a kernel package; done once for each package."""
    root = into / package.stem
    if not root.exists():
        new = into / f"{package.stem}.new"
        new.mkdir(parents=True, exist_ok=True)
        _run(["dpkg-deb", "-x", str(package), str(new)], "unpack the kernel's package")
        new.rename(root)
    releases = sorted(path.name for path in (root / "lib" / "modules").glob("*"))
    if len(releases) != 1:
        raise ConfigError(f"{package} is no kernel package: it holds modules of {len(releases)} kernels")
    return Kernel(root, releases[0], package.name)


def fetch(into: Path) -> Path:
    """The newest package of the cloud kernel that is in `into`, else from apt, which checks its signature.

    Needs no root: where apt's own lists are missing, private ones are fetched. Raises `Unavailable`.
    """
    into.mkdir(parents=True, exist_ok=True)
    if present := sorted(into.glob("linux-image-*.deb")):
        return present[-1]
    options = ["-o", "APT::Sandbox::User="]
    try:
        _download(into, options)
    except Unavailable:
        lists = into / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::lists={lists}/lists", "-o", f"Dir::Cache={lists}"]
        _run(["apt-get", "-qq", *options, "update"], "fetch apt's lists")
        _download(into, options)
    return sorted(into.glob("linux-image-*.deb"))[-1]


def _download(into: Path, options: list[str]) -> None:
    shown = _run(["apt-cache", *options, "show", "--no-all-versions", _META], f"look up {_META}")
    found = _DEPENDS.search(shown)
    if found is None:
        raise Unavailable(f"apt knows no {_META}: name a kernel package with --kernel-package FILE.deb")
    _run(["apt-get", "-qq", *options, "download", found[1]], f"download {found[1]}", cwd=into)


def _run(command: list[str], what: str, *, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"cannot {what}: {error}") from error
    if done.returncode:
        raise Unavailable(f"cannot {what}: {done.stderr.strip()[-300:]} (or name a file with --kernel-package)")
    return done.stdout


def _payload(image: bytes) -> bytes:
    """The packed kernel in a bzImage: `payload_offset` and `payload_length` of boot protocol 2.08."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start : start + length]


def _unpacked(data: bytes) -> bytes:
    for magic, command in _UNPACK:
        if data.startswith(magic):
            return _through(command, data)
    raise ConfigError(f"a kernel file is packed in an unknown way ({data[:6].hex()})")


def _through(command: tuple[str, ...], data: bytes) -> bytes:
    """What the program makes of `data`, whatever it says about the few bytes behind a kernel's payload."""
    try:
        out = subprocess.run(command, input=data, capture_output=True, check=False, timeout=_SECONDS).stdout
    except FileNotFoundError:
        raise ConfigError(f"the program {command[0]} is missing: apt-get install {command[0]}") from None
    if out[:4] != b"\x7fELF":
        raise ConfigError(f"{command[0]} could not unpack a kernel file")
    return out


def _normal(name: str) -> str:
    return name.replace("-", "_")


def _info(module: bytes, key: str) -> list[str]:
    """The values of a key in `.modinfo`, strings that end with NUL."""
    return [value.decode() for value in re.findall(rb"\0" + key.encode() + rb"=([^\0]*)(?=\0)", module)]
