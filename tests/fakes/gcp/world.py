"""A fake Google Cloud with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from google.auth.compute_engine import _metadata
from google.auth.credentials import CredentialsWithRegionalAccessBoundary

import providers.gcp
from providers.gcp.surroundings import Waits
from tests.fakes import world as any_cloud
from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import key_file
from tests.fakes.wire import Wire
from tests.fakes.world import OWNER, launch

__all__ = ["OWNER", "World", "launch", "plain", "world"]

# The SDK asks a fixed address of Google's, in a thread of its own, in which regions credentials may be used.
CredentialsWithRegionalAccessBoundary._is_regional_access_boundary_lookup_required = lambda _: False  # type: ignore[method-assign]


class World(any_cloud.World):
    """`google` is the service, `cloud` what is in it."""

    driver = providers.gcp

    def __init__(self, folder: Path, google: GoogleCloud, wire: Wire) -> None:
        super().__init__(folder, wire)
        self.google, self.faults = google, google.faults
        self.cloud, self.ledger = google.cloud, google.cloud.ledger
        self.waits = Waits(read_timeout=1.0, long_poll=1.0, looks=5)

    def settings(self) -> Mapping[str, str]:
        return {
            "GCP_CREDENTIALS": key_file(self.wire.url),
            "GCP_PROJECT_ID": "demo-project",
            "GCP_ZONE": "europe-west3-a",
            "GCP_NETWORK": "pods",
            "GCP_SUBNETWORK": "pods",
            "GCP_MACHINE_TYPE": "n2d-standard-2",
            "PODVM_IMAGE_NAME": "podvm",
            "GCP_COMPUTE_ENDPOINT": self.wire.url,
            "GCP_RESOURCE_MANAGER_ENDPOINT": self.wire.url,
        }

    async def body_of(self, *, settings: Mapping[str, str], **request: object) -> dict[str, Any]:
        """The body of one insert, whose instance is removed again."""
        driver = self.make(**settings)
        made = await driver.create(launch(**request))  # type: ignore[arg-type]
        await driver.delete(made.id)
        await driver.close()
        return self.cloud.inserts[-1]

    def plain(self, text: str) -> str:
        return plain(text)

    def settle(self) -> None:
        self.cloud.settle()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    google = GoogleCloud()
    with Wire(google) as wire:
        try:
            made = World(folder, google, wire)
            # The SDK reads where its metadata server is once, when it is imported.
            _metadata._GCE_METADATA_HOST = wire.url.removeprefix("http://")
            async with aclosing(made):
                yield made
            made.nothing_left()
        finally:
            google.cloud.over.set()


def plain(text: str) -> str:
    """A text of this world without what differs from run to run."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://google", text)
    return re.sub(r"operation-\d+", "operation-0", text)
