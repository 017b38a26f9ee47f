"""The pod VM image, built once for the suite in the checkout's cache, and a rack of machines that boot it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caa.testing.qemu import Rack
from caa.wire.certs import NodeAuthority
from podvm.image import recipe

CACHE = Path(recipe.__file__).resolve().parents[2] / ".cache" / "image"


@dataclass(frozen=True)
class Built:
    """The files of one build by their suffix, and the folder they are in."""

    folder: Path

    def file(self, suffix: str) -> Path:
        return self.folder / f"{recipe.Wish().name}.{suffix}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("image")
    recipe.build(recipe.Wish(), CACHE, to=folder)
    return Built(folder)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, NodeAuthority.load_or_create(tmp_path))
    yield made
    made.stop()
