"""What the guest's tests leave behind goes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_device_nodes() -> Iterator[None]:
    """cryptsetup makes /dev/mapper/control, whether the kernel has a device mapper or not."""
    node = Path("/dev/mapper")
    was_there = node.exists()
    yield
    if not was_there and "device-mapper" not in Path("/proc/misc").read_text():
        shutil.rmtree(node, ignore_errors=True)
