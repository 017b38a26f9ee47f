"""`python -m tests.fakes.gcp`: Compute Engine, Resource Manager and token servers on the loopback, until Ctrl-C."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import key_file
from tests.fakes.ledger import Ledger
from tests.fakes.machines import Host
from tests.fakes.serving import Offer, serve
from tests.fakes.wire import Wire

# Seconds: from the insert until it runs, until a list shows its address, from the delete until it is gone, of a call.
_MAKING, _ADDRESS, _ENDING, _LATENCY = 1.5, 0.5, 1.5, 0.05


def settings(url: str) -> Mapping[str, str]:
    """What a node in the cloud at `url` is set to."""
    return {
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


@contextmanager
def opened(_: Path, port: int) -> Iterator[Offer]:
    """The cloud, and who gives out its tokens."""
    google = GoogleCloud()
    cloud = google.cloud
    cloud.delays.making, cloud.delays.address, cloud.delays.ending = _MAKING, _ADDRESS, _ENDING
    google.faults.latency = _LATENCY

    def settled() -> Ledger:
        cloud.settle()
        return cloud.ledger

    def attach(host: Host) -> None:
        cloud.host, host.halted = host, cloud.power_off

    def named() -> Mapping[str, str]:
        names = [one.id.rpartition("/")[2] for one in settled().alive("instance")]
        return {one: one for one in names}

    with Wire(google, port=port) as wire:
        yield Offer(settings=settings(wire.url), ledger=settled, instances=named, attach=attach)
        cloud.over.set()


if __name__ == "__main__":
    serve("gcp", opened)
