"""`python -m caa.testing.shim exec SOCKET CONTAINER -- COMMAND...`: run a command in a container of a kept pod."""

import argparse
import asyncio
import os
import signal
import stat
import sys
import termios
import tty
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from caa.errors import CaaError
from caa.testing.shim import requests
from caa.testing.shim.kinds import ContainerOptions, Kind, habits
from caa.testing.shim.link import AgentLink, Stopwatch
from caa.testing.shim.process import Process
from caa.wire.client import connect

STDIN = 0
CHUNK = 32768


async def run(socket: str, container: str, *, command: Sequence[str]) -> int:
    """Run `command` with our own standard streams; returns its exit code."""
    terminal = os.isatty(STDIN)
    options = ContainerOptions(name="exec", args=tuple(command), env=_environment(terminal), tty=terminal)
    link = AgentLink(await connect(socket), habits(Kind.GO), watch=Stopwatch())
    exec_id = str(uuid.uuid4())
    await link.call("ExecProcess", requests.execute(container, exec_id, options=options))
    process = Process(link, container, exec_id=exec_id, options=options)
    process.listener = _show
    process.follow()
    with ExitStack() as stack:
        if terminal:
            stack.enter_context(_raw_terminal())
            await _follow_size(process)
        feeding = asyncio.create_task(_feed(process))
        code = await process.wait()
        feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    await link.close()
    return code


def _environment(terminal: bool) -> tuple[str, ...]:
    return ("PATH=/bin:/usr/bin", "TERM=xterm") if terminal else ("PATH=/bin:/usr/bin",)


def _show(data: bytes, is_stderr: bool) -> None:
    stream = sys.stderr.buffer if is_stderr else sys.stdout.buffer
    stream.write(data)
    stream.flush()


async def _feed(process: Process) -> None:
    """Send our stdin to its end."""
    watched = _can_wait(os.fstat(STDIN))
    while data := await _read(watched):
        await process.write(data)
    await process.close_stdin()


def _can_wait(stdin: os.stat_result) -> bool:
    """A file and /dev/null cannot be watched by the loop and need not be: a read of them never waits."""
    return not stat.S_ISREG(stdin.st_mode) and stdin.st_rdev != Path(os.devnull).stat().st_rdev


async def _read(watched: bool) -> bytes:
    if watched:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(STDIN, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(STDIN)
    return os.read(STDIN, CHUNK)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    kept = termios.tcgetattr(STDIN)
    tty.setraw(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, kept)


async def _follow_size(process: Process) -> None:
    resizes: set[asyncio.Task[None]] = set()

    def resized() -> None:
        size = os.get_terminal_size(STDIN)
        task = asyncio.create_task(process.resize(size.lines, size.columns))
        resizes.add(task)
        task.add_done_callback(resizes.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, resized)
    size = os.get_terminal_size(STDIN)
    await process.resize(size.lines, size.columns)


def main(argv: Sequence[str], say: Callable[[str], object] = sys.stderr.write) -> int:
    """The command line; 255 when the agent refuses or cannot be reached."""
    parser = argparse.ArgumentParser(prog="caa.testing.shim", description="Talk to a pod as its shim does.")
    execute = parser.add_subparsers(required=True).add_parser("exec", help="run a command in a container")
    execute.add_argument("socket", help="the pod's agent socket: PODS/SANDBOX/agent.ttrpc")
    execute.add_argument("container", help="the container's id")
    execute.add_argument("command", nargs="+", help="after --: the command and its arguments")
    given = parser.parse_args(argv)
    try:
        return asyncio.run(run(given.socket, given.container, command=given.command))
    except CaaError as error:
        say(f"{error}\n")
        return 255


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
