"""A fake cloud of this checkout's tests as a process beside the daemons: its settings, its ledger, its instances' ids.

`tests/fakes` is no part of the distribution and not imported here; what is asked of it goes over its desk's HTTP.
"""

import asyncio
import http.client
import json
import shlex
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from caa.errors import ConfigError, Unavailable
from caa.testing.demo.daemons import Paths

_ROOT = Path(__file__).resolve().parents[3]
_DESK = "FAKE_CLOUD_URL"  # the last setting that it prints
_START = 60.0  # seconds; a second or two where nothing else runs
_STOP = 20.0
_SETTLE = 10.0  # seconds that a deleted instance may still be going


@dataclass(frozen=True)
class Fake:
    """A fake cloud that serves."""

    settings: Mapping[str, str]

    @classmethod
    @asynccontextmanager
    async def started(cls, provider: str, paths: Paths, *, environ: Mapping[str, str]) -> AsyncIterator["Fake"]:
        """It runs for as long as the block; its instances boot as local pod VMs with their records in `paths.vms`.

        Raises `ConfigError` outside a checkout, `Unavailable` with what it said when it does not come up.
        """
        if not (_ROOT / "tests" / "fakes" / provider / "__main__.py").is_file():
            raise ConfigError(
                f"--provider {provider}: the fake clouds are in the source tree only; run `make demo "
                f"PROVIDER={provider}` in a checkout of it"
            )
        with paths.log("cloud").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"tests.fakes.{provider}", "--boot", str(paths.vms)),
                cwd=_ROOT,
                env={**environ, "TMPDIR": str(paths.top)},  # goes with the demo, even when it is killed
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo alone
            )
        try:
            settings = await _settings(process)
            if _DESK not in settings:
                raise Unavailable(f"the fake cloud did not start: {paths.end_of_log('cloud')}")
            yield cls(settings)
        finally:
            await _ended(process)

    def identity(self, name: str) -> str:
        """The driver's id of the instance with this name. Raises `Unavailable` when there is none."""
        found = self._asked("/instances")
        if name not in found:
            raise Unavailable(f"the fake cloud has no instance {name}, but {sorted(found)}")
        return str(found[name])

    def left(self, seconds: float = _SETTLE) -> Sequence[str]:
        """What is in its ledger once nothing is, or after so many seconds."""
        end = time.monotonic() + seconds
        while (found := self._asked("/ledger")) and time.monotonic() < end:
            time.sleep(0.1)
        return [f"{one['kind']} {one['id']}" for one in found]

    def _asked(self, path: str) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.settings[_DESK]).netloc, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the fake cloud does not answer: {error}") from error
        finally:
            connection.close()


async def _settings(process: Process) -> Mapping[str, str]:
    """The lines `export NAME=VALUE` that it prints once it serves; without the desk's when it does not come to that."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(_START):
            while _DESK not in found and (line := await process.stdout.readline()):
                _, assignment = shlex.split(line.decode())
                name, _, value = assignment.partition("=")
                found[name] = value
    return found


async def _ended(process: Process) -> None:
    """It removes what it has when it is told to end."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP)
    except TimeoutError:
        process.kill()
        await process.wait()
