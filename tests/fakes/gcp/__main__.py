"""`python -m tests.fakes.gcp`: Compute Engine, Resource Manager and token servers on the loopback, until Ctrl-C."""

import argparse
import shlex
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import key_file
from tests.fakes.wire import Wire


def settings(url: str) -> Mapping[str, str]:
    """What a node in the cloud at `url` is set to."""
    return {
        "CLOUD_PROVIDER": "gcp",
        "GCP_CREDENTIALS": key_file(url),
        "GCP_COMPUTE_ENDPOINT": url,
        "GCP_RESOURCE_MANAGER_ENDPOINT": url,
        "GCP_PROJECT_ID": "demo-project",
        "GCP_ZONE": "europe-west3-a",
        "GCP_NETWORK": "pods",
        "GCP_SUBNETWORK": "pods",
        "GCP_MACHINE_TYPE": "n2d-standard-2",
        "PODVM_IMAGE_NAME": "podvm",
    }


def main() -> None:
    """Print the settings, wait, print the ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    google = GoogleCloud()
    with Wire(google, port=parser.parse_args().port) as wire:
        lines = (f"export {key}={shlex.quote(value)}\n" for key, value in settings(wire.url).items())
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        google.cloud.over.set()
        google.cloud.settle()
        sys.stderr.write(f"\n{google.cloud.ledger}\n")


if __name__ == "__main__":
    main()
