"""The build tree: a Debian trixie with mkosi and the tools around it, where every image is made and changed.

Debian before trixie and Ubuntu have no mkosi of 25 or later, so the tree is the one way everywhere: the same tools, the
same bytes. It is used through namespaces of its own; nothing of the machine is touched but the cache.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError, Unavailable

RELEASE = "trixie"
_PACKAGES = (
    "apt", "binutils", "ca-certificates", "cpio", "cryptsetup-bin", "dosfstools", "erofs-utils", "fdisk", "kmod",
    "mkosi", "mtools", "python3-yaml", "systemd-boot-efi", "systemd-repart", "systemd-ukify", "xz-utils", "zstd",
)  # fmt: skip
_SECONDS = 3600.0
_MIRROR = re.compile(r"^deb (?:\[[^]]*\] )?(\S+)", re.MULTILINE)
# Enter the tree: its root becomes ours in a mount namespace, which ends with the command.
_ENTER = """
set -e
root=$1; shift
mount --make-rprivate /
mount --rbind "$root" "$root"
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --rbind "$1" "$root$2"; shift 2; done
shift
mkdir -p "$root/.old"; cd "$root"; pivot_root . .old; umount -l /.old; cd /
exec "$@"
"""
_ENVIRON: Mapping[str, str] = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/code",
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """A tree that is ready. `binds` are folders of the machine that are seen in it, by their path there."""

    root: Path
    mirror: str
    binds: Mapping[str, Path]

    def run(self, command: Sequence[str], what: str, *, log: Path | None = None) -> str:
        """Run a command in the tree; its standard output. Raises `ConfigError` with the end of what it said."""
        binds = [word for place, folder in self.binds.items() for word in (str(folder), place)]
        whole = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.root), *binds, "--", *command]
        done = subprocess.run(
            whole,
            capture_output=True,
            text=True,
            check=False,
            env=dict(_ENVIRON),
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if log is not None:
            log.write_text(done.stdout + done.stderr)
        if done.returncode:
            raise ConfigError(f"cannot {what}: {(done.stderr or done.stdout).strip()[-1500:]}")
        return done.stdout


def opened(cache: Path, binds: Mapping[str, Path], *, mirror: str = "") -> Workshop:
    """The tree in `cache`, made when it is not there (two minutes). `mirror` is a Debian mirror, "" debootstrap's own.

    Raises `ConfigError` without root or debootstrap, `Unavailable` without the network.
    """
    if os.geteuid() != 0:
        raise ConfigError("an image is built as root (mounts in a namespace of its own): use sudo")
    root = cache / RELEASE
    if not root.exists():
        _make(root, mirror)
    found = _MIRROR.search((root / "etc" / "apt" / "sources.list").read_text())
    if found is None:
        raise ConfigError(f"{root} is no whole Debian tree: remove it, it is made again")
    return Workshop(root, found[1], dict(binds))


def _make(root: Path, mirror: str) -> None:
    if shutil.which("debootstrap") is None:
        raise ConfigError("the program debootstrap is missing: apt-get install debootstrap")
    new = root.with_name(f"{root.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", RELEASE, str(new), *([mirror] if mirror else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise Unavailable(f"debootstrap failed: {done.stdout.strip()[-500:]}")
    tree = Workshop(new, "", {})
    tree.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *_PACKAGES], "install the build tools")
    new.rename(root)
