"""What the stand-in can be told on its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BASE = Path("/run/kata-containers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`server` is the socket's path. `netns` is joined by containers whose request names no network namespace.

    `base` is the folder that the real agent calls CONTAINER_BASE: CreateSandbox empties it, CopyFile stays below it.
    `deny` holds request names (`ExecProcessRequest`) that are answered as the policy would.
    """

    server: Path = DEFAULT_BASE / "agent.sock"
    base: Path = DEFAULT_BASE
    work: Path = Path("/run/caa-agent")
    images: Path | None = None
    rootfs: Path | None = None
    netns: Path | None = None
    cgroup_parent: str = "/caa-agent"
    policy: Path | None = None
    deny: frozenset[str] = frozenset()


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; exits with a sentence when it is wrong."""
    arguments = _parser().parse_args(argv)
    values = vars(arguments)
    return Options(**{**values, "deny": frozenset(arguments.deny)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="caa.testing.agent", description="A stand-in for kata-agent, for tests.")
    add = parser.add_argument
    own = Options()
    add("--server-addr", dest="server", type=_socket, default=own.server, help="unix://PATH to listen on")
    add("--base", type=Path, default=own.base, help="the agent's folder, emptied by CreateSandbox")
    add("--work-dir", dest="work", type=Path, default=own.work, help="bundles, runc's state, containers' changes")
    add("--images", type=Path, help="a folder of unpacked root file systems, one folder an image name")
    add("--rootfs", type=Path, help="the root file system of every image that is not in --images")
    add("--netns", type=Path, help="network namespace for requests that name none")
    add("--cgroup-parent", default=own.cgroup_parent, help="containers' cgroups are PARENT/SANDBOX/CONTAINER")
    add("--policy", type=Path, help="a policy file; only its `default NAME := true|false` lines count")
    add("--deny", action="append", default=[], metavar="REQUEST", help="deny this request, e.g. ExecProcessRequest")
    return parser


def _socket(address: str) -> Path:
    scheme, _, path = address.rpartition("://")
    if scheme not in ("", "unix") or not path.startswith("/"):
        raise argparse.ArgumentTypeError(f"{address!r} is not unix:///PATH")
    return Path(path)
