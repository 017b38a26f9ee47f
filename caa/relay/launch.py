"""How to start the relay's process: the argument list for exec. Pure; imported by the starters, not by the relay."""

from __future__ import annotations

import sys
from pathlib import Path

import caa

_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from caa.relay.daemon import main; sys.exit(main(sys.argv[1:]))"


def command(
    *,
    hypervisor_socket: str,
    pods_dir: str,
    run_dir: str,
    state_dir: str,
    extra: tuple[str, ...] = (),
) -> list[str]:
    """The argument list of `caa relay`; `extra` holds further flags (`--grace-seconds 600`).

    `-I -S` keep the user's environment and site packages out, which halves start time and memory. The source root is
    where this package lies, a checkout or an installed wheel alike.
    """
    root = str(Path(caa.__file__).resolve().parent.parent)
    return [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _PROGRAM.format(root=root),
        "--hypervisor-socket",
        hypervisor_socket,
        "--pods-dir",
        pods_dir,
        "--run-dir",
        run_dir,
        "--state-dir",
        state_dir,
        *extra,
    ]
