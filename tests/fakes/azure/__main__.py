"""`python -m tests.fakes.azure`: a Resource Manager and a token endpoint on the loopback, until Ctrl-C."""

import argparse
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.world import certified, reached
from tests.fakes.wire import Wire


def main() -> None:
    """Print the settings, wait, print the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    azure = Azure(Role.of_page())
    with tempfile.TemporaryDirectory() as folder:
        with Wire(azure, tls=certified(Path(folder)), port=asked.port) as wire:
            settings = reached(azure.site, wire.url, ca=Path(folder) / "ca.pem")
            lines = [f"export {key}={value}\n" for key, value in {"CLOUD_PROVIDER": "azure", **settings}.items()]
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        sys.stderr.write(f"\n{azure.ledger}\n")


if __name__ == "__main__":
    main()
