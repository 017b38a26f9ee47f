"""The pod VM images, built once for the suite in the checkout's cache, and a rack of machines that boot them."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caa.testing.qemu import Rack
from caa.wire.certs import NodeAuthority
from podvm.image import recipe, workshop
from podvm.image.recipe import Wish
from podvm.image.sign import Signer

CACHE = Path(recipe.__file__).resolve().parents[2] / ".cache" / "image"
# The key whose certificate is in Debian's OVMF variables for tests; its pass phrase is public too.
SNAKE_OIL = Path("/usr/share/ovmf/PkKek-1-snakeoil.key")
_UNPACK = """
set -e
start=$(sfdisk --json "/image/$1" | python3 -c '
import json, sys
parts = json.load(sys.stdin)["partitiontable"]["partitions"]
print(next(part["start"] for part in parts if part["name"].startswith("root-") and "verity" not in part["name"]))')
fsck.erofs --offset=$((start * 512)) --extract=/out/tree --preserve "/image/$1"
"""


@dataclass(frozen=True)
class Built:
    """The files of one build by their suffix, and the folder they are in."""

    folder: Path
    wish: Wish

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.wish.name}.{suffix}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What clouds get: production, unsigned."""
    folder = tmp_path_factory.mktemp("image")
    recipe.build(Wish(), CACHE, to=folder)
    return Built(folder, Wish())


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """The snake oil key without its pass phrase."""
    plain = tmp_path_factory.mktemp("keys") / "key.pem"
    command = ["openssl", "pkey", "-in", str(SNAKE_OIL), "-passin", "pass:snakeoil", "-out", str(plain)]
    subprocess.run(command, check=True, capture_output=True)
    return Signer(key=plain, certificate=SNAKE_OIL.with_suffix(".pem"))


@pytest.fixture(scope="session")
def debug(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Built:
    """A debug image for confidential VMs, signed, with a key to log in."""
    folder = tmp_path_factory.mktemp("debug")
    (folder / "id.pub").write_text("ssh-ed25519 AAAAbuilt builder\n")
    wish = Wish(profile="debug", confidential=True, signer=signer, key_file=folder / "id.pub")
    recipe.build(wish, CACHE, to=folder)
    return Built(folder, wish)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Path], Path]:
    """The root file system of an image, unpacked."""

    def unpack(raw: Path) -> Path:
        shop = workshop.opened(CACHE, {"/out": tmp_path, "/image": raw.parent})
        shop.run(["sh", "-c", _UNPACK, "sh", raw.name], "unpack the image")
        return tmp_path / "tree"

    return unpack


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, NodeAuthority.load_or_create(tmp_path))
    yield made
    made.stop()
