"""A fake cloud as a process: `python -m tests.fakes.NAME`, on the loopback, until Ctrl-C or SIGTERM.

It prints the settings that reach it as lines for a shell, and at the end its ledger. With `--boot FOLDER` its instances
boot as `local` pod VMs (`machines`), which takes root and makes a bridge in the network namespace that it runs in.

`FAKE_CLOUD_URL` among the settings is its desk, which no cloud has: `/ledger` is what is alive, `/instances` the id of
each instance by its name, both in JSON.
"""

import argparse
import errno
import json
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.faults import Fault, Faults
from tests.fakes.ledger import Ledger
from tests.fakes.machines import GROUNDS, Host, Machines
from tests.fakes.wire import Reply, Request, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A fake that serves. `ledger` is of this instant, `instances` are the driver's ids; `attach` gives it a host."""

    settings: Mapping[str, str]
    ledger: Callable[[], Ledger]
    instances: Callable[[], Mapping[str, str]]
    attach: Callable[[Host], None]


class Desk:
    """`Service` of what a test or a demo asks about a cloud, and nobody could ask a real one."""

    def __init__(self, offer: Offer) -> None:
        self.faults = Faults()
        self._offer = offer

    def call_of(self, request: Request) -> str:
        """No faults are done here."""
        return ""

    def refusal(self, fault: Fault, request: Request) -> Reply:
        """Never asked."""
        return Reply(status=500)

    def answer(self, request: Request) -> Reply:
        """One of two questions."""
        if request.path == "/ledger":
            alive = self._offer.ledger().alive()
            return _json([{"kind": one.kind, "id": one.id, "cost": one.cost, "tags": dict(one.tags)} for one in alive])
        if request.path == "/instances":
            return _json(dict(self._offer.instances()))
        return Reply(status=404)


def serve(name: str, opened: Callable[[Path, int], AbstractContextManager[Offer]]) -> None:
    """The program. `opened` starts the fake: it gets a folder of its own, and the port, 0 for any."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fakes.{name}", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the cloud's API; else any that is free")
    parser.add_argument("--boot", type=Path, metavar="FOLDER", help="boot instances, with their records in FOLDER")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fake-cloud-")))
        try:
            offer = stack.enter_context(opened(folder, asked.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            parser.error(f"--port {asked.port}: {error.strerror}")
        if asked.boot:
            offer.attach(stack.enter_context(closing(Machines(asked.boot.absolute(), GROUNDS[name]))))
        desk = stack.enter_context(Wire(Desk(offer)))
        catalogue = {"CAA_CATALOGUE_DIR": str(folder / "catalogue")}  # a node's own has the types of a real cloud
        settings = {"CLOUD_PROVIDER": name, **offer.settings, **catalogue, "FAKE_CLOUD_URL": desk.url}
        _until_told([f"export {key}={shlex.quote(value)}\n" for key, value in settings.items()])
        sys.stderr.write(f"\n{offer.ledger()}\n")


def _until_told(lines: list[str]) -> None:
    """Print the lines, wait for the signal. Who reads them may signal at once."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    told.wait()


def _json(value: object) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})
