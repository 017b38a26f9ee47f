"""The demo's command line: enter namespaces of its own as root, run pods there, prove that nothing is left."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from caa.testing.demo import clouds, scenario
from caa.testing.demo.report import Result
from caa.testing.shim.kinds import Kind

_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private")
_TOOLS = ("unshare", "nsenter", "ip", "nft", "runc", "busybox", "mount")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A unix socket's path has at most 107 bytes; /caa-XXXXXXXX/r/pods/<64 digits>/.agent.ttrpc.<pid> takes about 102.
_LONGEST_DIRECTORY = len("/tmp")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--keep", is_flag=True, help="Leave the pod running until Ctrl-C; print how to exec into it.")
@click.option("--pods", default=1, show_default=True, type=click.IntRange(1, 100), help="Pods to run at once.")
@click.option(
    "--provider",
    default="local",
    show_default=True,
    type=click.Choice(clouds.KNOWN),
    help="Driver to use; a public cloud is a fake one, whose instances boot as those of local do.",
)
@click.option("--image", type=click.Path(path_type=Path), help="Folder of the tiny pod VM image, for libvirt.")
@click.option(
    "--shim",
    default=str(Kind.GO),
    show_default=True,
    type=click.Choice([str(kind) for kind in Kind]),
    help="Shim to be.",
)
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="The folder; set after re-execution.")
@click.option("--lifeline", type=int, default=0, hidden=True, help="A pipe that is closed when we must end.")
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
        image=options["image"],
        shim=Kind(options["shim"]),
    )
    result = _run(plan, options["lifeline"])
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
    sys.exit(130 if result.error == scenario.INTERRUPTED else int(not result.ok))


def _run(plan: scenario.Plan, lifeline: int) -> Result:
    try:
        return asyncio.run(_until_closed(plan, lifeline))
    finally:
        shutil.rmtree(plan.folder, ignore_errors=True)  # the outer process may be gone


async def _until_closed(plan: scenario.Plan, lifeline: int) -> Result:
    """Run, but end in order when the outer process closes its end of the pipe, or dies, or a signal comes."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(scenario.run(plan))
    ended: list[str] = []

    def end() -> None:
        loop.remove_reader(lifeline)
        if not ended:  # a second one would stop the removal
            ended.append("told to")
            running.cancel()

    loop.add_reader(lifeline, end)
    for number in _ENDING:
        loop.add_signal_handler(number, end)
    try:
        return await running
    except asyncio.CancelledError:  # before it had begun
        return Result(error=scenario.INTERRUPTED)


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
    sys.exit(_inside([*python, *argv]))


def _inside(command: list[str]) -> int:
    """Run it in namespaces and a session of its own. A signal to us closes a pipe; it then ends in order."""
    lifeline, ours = os.pipe()
    held = [ours]
    for number in _ENDING:
        signal.signal(number, lambda *_: os.close(held.pop()) if held else None)
    with tempfile.TemporaryDirectory(prefix="caa-", dir=short_directory(tempfile.gettempdir())) as folder:
        words = ["unshare", *_NAMESPACES, "--", *command, "--inside", folder, "--lifeline", str(lifeline)]
        # Not in our session: Ctrl-C is for us alone, the inner process might not be ready for it.
        return subprocess.Popen(words, pass_fds=(lifeline,), start_new_session=True).wait()


def short_directory(given: str) -> str:
    """Where the sockets can be: `given`, or /tmp when their paths would be longer than a unix socket's may be."""
    return given if len(os.fsencode(given)) <= _LONGEST_DIRECTORY else "/tmp"
