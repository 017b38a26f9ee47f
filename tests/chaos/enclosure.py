"""Namespaces of the run's own around a program, and what outlives them swept: cgroups have no namespace here."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from providers.local.translate import Site

_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private")
TOOLS = ("unshare", "nsenter", "ip", "nft", "runc", "busybox", "mount")
_PR_SET_PDEATHSIG = 1


def missing() -> list[str]:
    """The programs that are not there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [tool for tool in TOOLS if not shutil.which(tool, path=path)]


def run(argv: Sequence[str], *, places: Sequence[str]) -> int:
    """Run `argv FOLDER` inside; returns its status. `places` are the folders below FOLDER that pod VMs may live in.

    Ctrl-C ends the program in order, SIGTERM and our own death end it at once, with every process that it made.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="caa-") as folder:
        command = ["unshare", *_NAMESPACES, "--", *argv, folder]
        process = subprocess.Popen(command, preexec_fn=_die_with_us)  # noqa: PLW1509  (there are no threads yet)
        try:
            return process.wait()
        finally:
            process.kill()
            process.wait()
            for place in places:
                _sweep(_cgroup_parent(Path(folder, place)))


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _cgroup_parent(state: Path) -> str:
    return Site(
        state_dir=state, subnet=IPv4Network("10.199.0.0/24"), bridge="", agent_command=(), python=""
    ).cgroup_parent


def _sweep(name: str) -> None:
    """Empty once every process of the namespaces has died, which takes the kernel a moment."""
    end = time.monotonic() + 5
    tops = [path for depth in ("", "*/") for path in Path("/sys/fs/cgroup").glob(f"{depth}{name}")]
    while any(top.exists() for top in tops) and time.monotonic() < end:
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        time.sleep(0.05)
