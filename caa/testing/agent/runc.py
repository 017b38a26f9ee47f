"""runc's command line: one method a command, errors as the agent would tell them."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from caa.testing.agent.answers import error
from caa.testing.agent.streams import ConsoleSocket, Descriptor, Pipes, Streams

Stdio = tuple[int, int, int]
NOWHERE: Stdio = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)
_NOT_FOUND = re.compile(r'exec: "(?P<path>[^"]*)": (stat .*: no such file or directory|executable file not found)')


@dataclass(frozen=True, slots=True)
class Started:
    """A process that runc made: its pid in our pid namespace and its standard streams."""

    pid: int
    streams: Streams


class Runc:
    """Containers of one sandbox; `root` is runc's state directory, `scratch` takes pid files, logs and sockets."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch

    async def create(self, container: str, bundle: Path, *, terminal: bool) -> Started:
        """Make the container; its first process waits for `start`."""
        return await self._spawn(["create", "--bundle", str(bundle)], container, terminal=terminal)

    async def execute(self, container: str, process: Mapping[str, Any]) -> Started:
        """Run one more process in it; `process` is an OCI `process` object."""
        with self._call() as call:
            description = Path(call) / "process.json"
            description.write_text(json.dumps(process))
            command = ["exec", "--detach", "--process", str(description)]
            return await self._spawn(command, container, terminal=bool(process["terminal"]))

    async def start(self, container: str) -> None:
        await self._run(["start", container])

    async def pause(self, container: str) -> None:
        await self._run(["pause", container])

    async def resume(self, container: str) -> None:
        await self._run(["resume", container])

    async def update(self, container: str, resources: Mapping[str, Any]) -> None:
        """Set resource limits of a running container."""
        with self._call() as call:
            document = Path(call) / "resources.json"
            document.write_text(json.dumps(resources))
            await self._run(["update", "--resources", str(document), container])

    async def delete(self, container: str) -> None:
        """Kill everything in it and forget it; absent is fine."""
        await self._run(["delete", "--force", container])

    def _call(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(dir=self._scratch, prefix="call-")

    async def _spawn(self, command: Sequence[str], container: str, *, terminal: bool) -> Started:
        with self._call() as call:
            pid_file = Path(call) / "pid"
            command = [*command, "--pid-file", str(pid_file)]
            if terminal:
                streams = await self._with_terminal(command, container, path=Path(call) / "tty")
            else:
                streams = await self._with_pipes(command, container)
            return Started(int(pid_file.read_text()), streams)

    async def _with_pipes(self, command: Sequence[str], container: str) -> Streams:
        pipes = Pipes()
        try:
            await self._run([*command, container], stdio=pipes.child)
        except BaseException:
            pipes.discard()
            raise
        finally:
            pipes.close_child_ends()
        return pipes.streams()

    async def _with_terminal(self, command: Sequence[str], container: str, *, path: Path) -> Streams:
        with ConsoleSocket(path) as console:
            await self._run([*command, "--console-socket", str(path), container])
            return console.streams()

    async def _run(self, command: Sequence[str], *, stdio: Stdio = NOWHERE) -> None:
        with self._call() as call:
            log = Path(call) / "log"
            options = ["--root", str(self._root), "--log", str(log), "--log-format", "json"]
            if await _status(["runc", *options, *command], stdio) != 0:
                raise error(13, failure(log.read_text()))


async def _status(command: Sequence[str], stdio: Stdio) -> int:
    stdin, stdout, stderr = stdio
    # Not asyncio's subprocess: its watcher costs a thread a process, a pidfd costs nothing.
    child = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr)  # noqa: ASYNC220
    exited = Descriptor(os.pidfd_open(child.pid))
    try:
        await exited.readable()
    finally:
        exited.close()
    return child.wait()


def failure(log: str) -> str:
    """The sentence for the shim from runc's JSON log: the last error, a missing program in the real agent's words."""
    messages = [entry["msg"] for entry in map(json.loads, log.splitlines()) if entry.get("level") == "error"]
    message = str(messages[-1]) if messages else "runc failed"
    missing = _NOT_FOUND.search(message)
    return f"the file {missing['path']} was not found" if missing else message
