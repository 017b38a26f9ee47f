"""CPython of another architecture: Debian's packages of it, fetched and unpacked inside the build tree."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from caa.errors import ConfigError
from podvm.image.workshop import Workshop

# architecture -> Debian's name of it, and the one in the names of its libraries
_NAMES = MappingProxyType(
    {
        "amd64": ("amd64", "x86_64-linux-gnu"),
        "arm64": ("arm64", "aarch64-linux-gnu"),
        "s390x": ("s390x", "s390x-linux-gnu"),
        "ppc64le": ("ppc64el", "powerpc64le-linux-gnu"),
    }
)
# apt with lists and archives of its own; what is installed in the tree does not count.
_FETCH = """
set -e
architecture=$1; to=$2; shift 2
mkdir -p "$to/apt/lists/partial" "$to/apt/archives/partial"
apt() {
  apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures::="$architecture" -o APT::Sandbox::User=root \\
    -o Dir::State::lists="$to/apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$to/apt" "$@"
}
apt update
cd "$to/apt/archives"
apt download "$@"
for package in *.deb; do dpkg-deb -x "$package" "$to"; done
rm -r "$to/apt"
"""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of an architecture are, and how the same ones are called here (`here`) and there (`there`)."""

    root: Path
    here: str
    there: str

    def of(self, file: Path) -> Path:
        """The other architecture's file for one of ours; text that it lacks is ours. Raises `ConfigError`."""
        other = self.root / str(file).lstrip("/").replace(self.here, self.there)
        if other.is_file():
            return other
        if file.suffix == ".py":
            return file
        raise ConfigError(f"{file} is not there for {self.there}: its package has to be fetched too")


def fetch(shop: Workshop, to: str, *, architecture: str) -> None:
    """Put CPython and the packages that the guest imports below `to`, a folder as the build tree sees it."""
    python = shop.run(["python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], "ask for CPython")
    name = python.strip()
    packages = [f"{name}-minimal", f"lib{name}-minimal", f"lib{name}-stdlib", "python3-yaml"]
    shop.run(["sh", "-c", _FETCH, "sh", _NAMES[architecture][0], to, *packages], f"fetch CPython for {architecture}")


def triplet(architecture: str) -> str:
    """The name of an architecture in the names of its libraries."""
    return _NAMES[architecture][1]
