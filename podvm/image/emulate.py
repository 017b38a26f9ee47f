"""Programs of another architecture in the build tree: qemu-user, registered with the kernel for one command alone.

Packages run scripts with the architecture's own programs when they are installed. Since Linux 6.7 a user namespace has
formats of its own (binfmt_misc), so nothing is registered for the machine, and nothing of it is needed.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from caa.errors import ConfigError

_MACHINES = MappingProxyType({"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x", "ppc64le": "ppc64le"})
# architecture -> qemu's name of it, byte order (ELF's EI_DATA) and machine (e_machine in that order)
_FORMATS = MappingProxyType(
    {
        "amd64": ("x86_64", r"\x01", r"\x3e\x00"),
        "arm64": ("aarch64", r"\x01", r"\xb7\x00"),
        "s390x": ("s390x", r"\x02", r"\x00\x16"),
        "ppc64le": ("ppc64le", r"\x01", r"\x15\x00"),
    }
)
# Before the command of `workshop`: the identities are those of the machine, written from outside.
WAIT = "echo there; read -r go || exit 71\n"
REGISTER = """
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || { echo "no formats of its own" >&2; exit 70; }
printf '%s' "$FORMAT" >/proc/sys/fs/binfmt_misc/register
"""
_NO_FORMATS = 70
_ALL = "0 0 4294967295\n"


def native() -> str:
    """The architecture of this machine, "" for one that no image is built on."""
    return _MACHINES.get(platform.machine(), "")


def program(architecture: str) -> str:
    """Where the emulator is in the build tree."""
    return f"/usr/bin/qemu-{_FORMATS[architecture][0]}"


def registration(architecture: str) -> str:
    """The line for `binfmt_misc/register`: ELF programs of 64 bit for this machine (the kernel's binfmt-misc.rst).

    F keeps the emulator open, so that it is found in every root; P and C keep argument 0 and credentials.
    """
    name, order, machine = _FORMATS[architecture]
    little = order == r"\x01"
    kind, kind_mask = (r"\x02\x00", r"\xfe\xff") if little else (r"\x00\x02", r"\xff\xfe")
    magic = rf"\x7fELF\x02{order}\x01" + r"\x00" * 9 + kind + machine
    mask = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + kind_mask + r"\xff\xff"
    return f":podvm-{name}:M::{magic}:{mask}:{program(architecture)}:FPC"


def run(command: Sequence[str], *, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command that begins with `WAIT` as `sh -c` in namespaces whose users are the machine's.

    Raises `ConfigError` where the kernel is too old.
    """
    whole = ["unshare", "--user", "--mount", *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(whole, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=dict(env)) as process:
        _give_identities(process)
        try:
            out, said = process.communicate("go\n", timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    if process.returncode == _NO_FORMATS and "no formats of its own" in said:
        raise ConfigError(
            "another architecture is emulated on Linux 6.7 or later: build on such a machine, or on its own"
        )
    return subprocess.CompletedProcess(whole, process.returncode, out, said)


def _give_identities(process: subprocess.Popen[str]) -> None:
    """Once the shell speaks, in its own user namespace, every user and group is there what it is outside."""
    if process.stdout is None or process.stdout.readline() != "there\n":
        said = process.communicate()[1].strip()
        raise ConfigError(f"no user namespace can be made ({said}): build on a machine of the image's architecture")
    try:
        for table in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{table}").write_text(_ALL)
    except OSError as error:  # a container whose root is not the machine's
        raise ConfigError(
            f"the machine's users cannot be had in a user namespace ({error}): build on a machine of the image's "
            "architecture, or outside of this container"
        ) from error
