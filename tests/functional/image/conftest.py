"""The tiny image, and a rack of machines that boot it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caa.testing.qemu import Machine, Rack, drive_arguments
from caa.wire.certs import NodeAuthority
from podvm.image import tiny

CACHE = Path(tiny.__file__).resolve().parents[2] / ".cache" / "image"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, NodeAuthority.load_or_create(tmp_path))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def tiny_image() -> tiny.Tiny:
    """The tiny image, built in the checkout's cache."""
    return tiny.build(CACHE)


@pytest.fixture
def boot_tiny(rack: Rack, tiny_image: tiny.Tiny) -> Callable[..., Machine]:
    """Boot the tiny image with a config drive; `words` go to the kernel's command line."""

    def boot(document: bytes | None = None, words: str = "") -> Machine:
        direct = ("-kernel", tiny_image.kernel, "-initrd", tiny_image.initrd)
        cmdline = f"{tiny_image.cmdline} {words}".strip()
        return rack.start(*direct, "-append", cmdline, *drive_arguments(rack.drive(document)))

    return boot
