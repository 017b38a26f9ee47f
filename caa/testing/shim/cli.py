"""`python -m caa.testing.shim exec`: one process in a container of a running pod, over the pod's own agent socket."""

import asyncio
import sys
import uuid

import click

from caa.errors import CaaError
from caa.testing.shim import requests
from caa.testing.shim.kinds import ContainerOptions, ExecResult, Kind, habits
from caa.testing.shim.link import AgentLink, Stopwatch
from caa.testing.shim.process import Process
from caa.wire.client import connect


@click.group()
def main() -> None:
    """Speak to a pod's agent as a second connection of its shim."""


@main.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("socket")
@click.argument("container")
@click.argument("argv", nargs=-1, required=True)
def execute(socket: str, container: str, argv: tuple[str, ...]) -> None:
    """Run ARGV in CONTAINER (its id) of the pod whose agent.ttrpc is SOCKET; standard input is passed on if piped."""
    stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    try:
        result = asyncio.run(_execute(socket, container, argv=argv, stdin=stdin))
    except CaaError as error:
        raise click.ClickException(str(error)) from error
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    sys.exit(result.exit_code)


async def _execute(socket: str, container: str, *, argv: tuple[str, ...], stdin: bytes) -> ExecResult:
    client = await connect(socket)
    try:
        link = AgentLink(client, habits(Kind.GO), Stopwatch())
        exec_id, options = str(uuid.uuid4()), ContainerOptions(name="exec", args=argv)
        await link.call("ExecProcess", requests.execute(container, exec_id, options=options))
        process = Process(link, container, exec_id, options=options)
        process.follow()
        if stdin:
            await process.write(stdin)
        await process.close_stdin()
        return await process.result()
    finally:
        await client.close()
