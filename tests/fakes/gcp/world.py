"""A fake Google Cloud with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from google.auth.credentials import CredentialsWithRegionalAccessBoundary

import providers.gcp
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner
from caa.provider.contract import Provider
from caa.testing.clock import ScaledClock
from providers.gcp.surroundings import Waits
from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import key_file
from tests.fakes.wire import Wire

# The SDK asks a fixed address of Google's, in a thread of its own, in which regions credentials may be used.
CredentialsWithRegionalAccessBoundary._is_regional_access_boundary_lookup_required = lambda _: False  # type: ignore[method-assign]

OWNER = Owner(cluster="c1", node="n1")
SPEED = 50.0  # how much faster than the world's clock the driver's runs


class World:
    """`google` is the service, `cloud` what is in it, `wire` its port; `make` gives drivers."""

    def __init__(self, folder: Path, google: GoogleCloud, wire: Wire) -> None:
        self.folder, self.google, self.wire = folder, google, wire
        self.cloud = google.cloud
        self.waits = Waits(read_timeout=1.0, long_poll=1.0, looks=5)

    def environ(self, **other: str) -> dict[str, str]:
        """The settings of a node in this cloud; "" takes one away."""
        found = {
            "GCP_CREDENTIALS": key_file(self.wire.url),
            "GCP_PROJECT_ID": "demo-project",
            "GCP_ZONE": "europe-west3-a",
            "GCP_NETWORK": "pods",
            "GCP_SUBNETWORK": "pods",
            "GCP_MACHINE_TYPE": "n2d-standard-2",
            "PODVM_IMAGE_NAME": "podvm",
            "GCP_COMPUTE_ENDPOINT": self.wire.url,
            "GCP_RESOURCE_MANAGER_ENDPOINT": self.wire.url,
            "CAA_CATALOGUE_DIR": str(self.folder / "catalogue"),
            "CLOUD_CALLS_PER_SECOND": "100",
            **other,
        }
        return {key: value for key, value in found.items() if value}

    def make(self, **other: str) -> Provider:
        """A driver with these settings; what is set twice is the latter."""
        values = load((*NODE_ROWS, *providers.gcp.SETTINGS), self.environ(**other))
        return providers.gcp.make(values, clock=ScaledClock(SPEED), waits=self.waits)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.google.faults.clear()

    async def swept(self, driver: Provider) -> list[str]:
        """Remove what is owned, as the sweep of the node does, and prove that nothing is left. Returns the ids."""
        self.calm()
        await asyncio.sleep(self.google.faults.visible_after)
        found = [str(one.id) for one in await driver.list_owned(OWNER)]
        await asyncio.gather(*(driver.delete(one.id) for one in await driver.list_owned(OWNER)))
        self.cloud.settle()
        assert not self.cloud.ledger, str(self.cloud.ledger)
        return found


def launch(name: str = "podvm-web-0a1b2c3d", **other: object) -> LaunchRequest:
    """A launch request of a pod."""
    fields: Mapping[str, object] = {
        "name": name,
        "sandbox": SandboxId(f"sandbox-{name[-8:]}"),
        "owner": OWNER,
        "token": f"token-{name[-8:]}",
        "user_data": b"#cloud-config\n",
        "namespace": "shop",
        "pod": "web",
        **other,
    }
    return LaunchRequest(**fields)  # type: ignore[arg-type]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    google = GoogleCloud()
    with Wire(google) as wire:
        try:
            made = World(folder, google, wire)
            yield made
            google.cloud.settle()
            assert not google.cloud.ledger, str(google.cloud.ledger)
        finally:
            google.cloud.over.set()


def plain(text: str) -> str:
    """A text of this world without what differs from run to run."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://google", text)
    return re.sub(r"operation-\d+", "operation-0", text)
