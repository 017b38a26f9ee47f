"""The demo's command line: enter namespaces of its own as root, run pods there, prove that nothing is left."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from caa.testing.demo import scenario
from caa.testing.demo.report import Result
from caa.testing.shim.kinds import Kind

_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private")
_TOOLS = ("unshare", "nsenter", "ip", "nft", "runc", "busybox", "mount")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--keep", is_flag=True, help="Leave the pod running until Ctrl-C; print how to exec into it.")
@click.option("--pods", default=1, show_default=True, type=click.IntRange(1, 100), help="Pods to run at once.")
@click.option("--provider", default="local", show_default=True, help="Driver to use.")
@click.option("--shim", default=Kind.GO.value, type=click.Choice([kind.value for kind in Kind]), help="Shim to be.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="The folder; set after re-execution.")
def main(*, as_json: bool, keep: bool, inside: Path | None, **options: Any) -> None:
    """Start a pod VM through the whole path, use it, stop it, and look for anything left over."""
    if inside is None:
        _enter(sys.argv[1:])
        return
    plan = scenario.Plan(
        folder=inside,
        environ=os.environ,
        keep=keep,
        quiet=as_json,
        pods=options["pods"],
        provider=options["provider"],
        shim=Kind(options["shim"]),
    )
    result = _run(plan)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
    sys.exit(0 if result.ok else 1)


def _run(plan: scenario.Plan) -> Result:
    try:
        return asyncio.run(scenario.run(plan))
    except KeyboardInterrupt:
        return Result(error="interrupted")


def _enter(argv: list[str]) -> None:
    """Re-execute inside new namespaces; what the demo makes there dies with them, on this machine nothing changes."""
    python = [sys.executable, "-m", "caa.testing.demo"]
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise click.ClickException("the demo makes namespaces and needs root: run it as root, or install sudo")
        os.execvp("sudo", ["sudo", "--", *python, *argv])
    missing = [tool for tool in _TOOLS if not shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")]
    if missing:
        raise click.ClickException(f"missing programs: {', '.join(missing)}; `make demo` installs what they come in")
    with tempfile.TemporaryDirectory(prefix="caa-") as folder:
        signal.signal(signal.SIGINT, lambda *_: None)  # the child ends by it, in order; we wait
        command = ["unshare", *_NAMESPACES, "--", *python, *argv, "--inside", folder]
        status = os.spawnvp(os.P_WAIT, command[0], command)
    sys.exit(status)
