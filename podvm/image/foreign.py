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
for package in *.deb; do
  dpkg-deb -x "$package" "$to"
  dpkg-deb -W --showformat='${Package} ${Version} ${Architecture}\n' "$package"
done
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


Package = dict[str, str]  # a row of mkosi's manifest: type, name, version, architecture


def fetch(shop: Workshop, to: str, *, architecture: str) -> list[Package]:
    """Put CPython and the packages that the guest imports below `to`, a folder as the build tree sees it."""
    call = ["sh", "-c", _FETCH, "sh", _NAMES[architecture][0], to, *_wanted(shop)]
    return _packages(shop.run(call, f"fetch CPython for {architecture}"))


def installed(shop: Workshop) -> list[Package]:
    """The packages of the build tree itself from which the guest has CPython and what it imports."""
    call = ["dpkg-query", "-W", "--showformat=${Package} ${Version} ${Architecture}\n", *_wanted(shop)]
    return _packages(shop.run(call, "ask for CPython's packages"))


def _wanted(shop: Workshop) -> list[str]:
    python = shop.run(["python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], "ask for CPython")
    name = python.strip()
    return [f"{name}-minimal", f"lib{name}-minimal", f"lib{name}-stdlib", "python3-yaml"]


def _packages(listing: str) -> list[Package]:
    """The rows of a listing of names, versions and architectures."""
    rows = (line.split() for line in listing.splitlines() if line.strip())
    keys = ("name", "version", "architecture")
    return [{"type": "deb", **dict(zip(keys, row, strict=True))} for row in rows]


def triplet(architecture: str) -> str:
    """The name of an architecture in the names of its libraries."""
    return _NAMES[architecture][1]
