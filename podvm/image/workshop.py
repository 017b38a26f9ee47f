"""The build tree: a Debian trixie with mkosi and the tools around it, where every image is made and changed.

Debian before trixie and Ubuntu have no mkosi of 25 or later, so the tree is the one way everywhere: the same tools, the
same bytes. It is used through namespaces of its own; nothing of the machine is touched but the cache.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from caa.errors import ConfigError, Unavailable
from podvm.image import emulate

RELEASE = "trixie"
_PACKAGES = (
    "apt", "binutils", "ca-certificates", "cpio", "cryptsetup-bin", "dosfstools", "erofs-utils", "fdisk", "kmod",
    "mkosi", "mtools", "python3-yaml", "sbsigntool", "systemd-boot-efi", "systemd-repart", "systemd-ukify", "xz-utils",
    "zstd",
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
"""
_EXECUTE = 'exec "$@"'
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
    """A tree that is ready. `binds` are folders of the machine that are seen in it, by their path there.

    `foreign` is the architecture whose programs run as well, "" when there is none but the tree's own.
    """

    root: Path
    mirror: str
    binds: Mapping[str, Path]
    foreign: str = ""

    def run(self, command: Sequence[str], what: str, *, log: Path | None = None) -> str:
        """Run a command in the tree; its standard output. Raises `ConfigError` with the end of what it said."""
        done = self._run_foreign(command) if self.foreign else self._run(command)
        if log is not None:
            log.write_text(done.stdout + done.stderr)
        if done.returncode:
            whole = f" (all of it is in {log})" if log is not None else ""
            raise ConfigError(f"cannot {what}: {(done.stderr or done.stdout).strip()[-1500:]}{whole}")
        return done.stdout

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", *self._inside(_ENTER, command)],
            capture_output=True,
            text=True,
            check=False,
            env=dict(_ENVIRON),
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def _run_foreign(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        whole = self._inside(emulate.WAIT + _ENTER + emulate.REGISTER, command)
        env = {**_ENVIRON, "FORMAT": emulate.registration(self.foreign)}
        return emulate.run(whole, env=env, timeout=_SECONDS)

    def _inside(self, script: str, command: Sequence[str]) -> list[str]:
        binds = [word for place, folder in self.binds.items() for word in (str(folder), place)]
        return ["sh", "-c", script + _EXECUTE, "sh", str(self.root), *binds, "--", *command]


def opened(cache: Path, binds: Mapping[str, Path], *, mirror: str = "", architecture: str = "") -> Workshop:
    """The tree in `cache`, made when it is not there (two minutes). `mirror` is a Debian mirror, "" debootstrap's own.

    Programs of `architecture` run in it too: "" or the machine's own for none but its own.

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
    shop = Workshop(root, found[1], dict(binds))
    return shop if architecture in ("", emulate.native()) else _with_emulator(shop, architecture)


def _with_emulator(shop: Workshop, architecture: str) -> Workshop:
    if not (shop.root / emulate.program(architecture).lstrip("/")).exists():
        shop.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", "qemu-user"], "install the emulator")
    return replace(shop, foreign=architecture)


def _make(root: Path, mirror: str) -> None:
    if shutil.which("debootstrap") is None:
        raise ConfigError("the program debootstrap is missing: apt-get install debootstrap")
    sys.stderr.write(f"image: making the build tree {root}, which takes minutes and is kept\n")
    new = root.with_name(f"{root.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", RELEASE, str(new), *([mirror] if mirror else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise Unavailable(f"debootstrap failed: {done.stdout.strip()[-500:]}")
    tree = Workshop(new, "", {})
    tree.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *_PACKAGES], "install the build tools")
    new.rename(root)
