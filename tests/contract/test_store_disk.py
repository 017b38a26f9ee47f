"""The store on a disk that is full or read-only: every refusal is a `StateError`, nothing that was there is lost, and
it goes on once there is room."""

import ctypes
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase
from caa.sandbox.store import SqliteStore, open_store
from caa.testing.store_contract import record

pytestmark = pytest.mark.root
_CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a MiB in a mount namespace of this thread, and of the threads that it starts."""
    home, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), Path.cwd()
    assert _libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    try:
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path))
        yield tmp_path
    finally:
        _go_home(home)
        os.close(home)
        os.chdir(folder)


def _go_home(home: int) -> None:
    """The kernel refuses while a thread that we started shares our folders, and one that was joined may still end."""
    end = time.monotonic() + 5
    while _libc.setns(home, _CLONE_NEWNS) != 0:
        assert time.monotonic() < end, os.strerror(ctypes.get_errno())
        time.sleep(0.001)


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True)


@pytest.fixture
async def store(disk: Path) -> AsyncIterator[SqliteStore]:
    made = await open_store(disk / "node.db")
    await made.add(record())
    yield made
    await made.close()


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


async def test_a_full_disk(store: SqliteStore, disk: Path) -> None:
    ballast = fill(disk)

    async def add_many() -> None:
        for number in range(200):
            await store.add(replace(record(f"s{number}"), error="x" * 10_000))

    async def put_often() -> None:
        for _ in range(200):
            await store.put(replace(record(), phase=Phase.RUNNING, error="x" * 20_000))

    with pytest.raises(StateError, match="full"):
        await add_many()
    kept = list(await store.all())
    assert record() in kept
    with pytest.raises(StateError, match="full"):
        await put_often()
    assert {one.id for one in await store.all()} == {one.id for one in kept}
    ballast.unlink()
    await store.put(replace(record(), phase=Phase.STOPPING))
    assert (await store.get(SandboxId("a"))) == replace(record(), phase=Phase.STOPPING)
    await store.remove(SandboxId("a"))
    assert await store.get(SandboxId("a")) is None


async def test_a_full_disk_at_the_start(disk: Path) -> None:
    """What is there can be read, or the refusal says why."""
    store = await open_store(disk / "node.db")
    await store.add(record())
    await store.close()
    ballast = fill(disk)
    try:
        again = await open_store(disk / "node.db")
    except StateError as error:
        assert "full" in str(error)  # noqa: PT017
    else:
        assert list(await again.all()) == [record()]
        await again.close()
    ballast.unlink()
    last = await open_store(disk / "node.db")
    assert list(await last.all()) == [record()]
    assert last.set_aside is None, "a full disk is no damage"
    await last.close()


async def test_a_new_store_on_a_full_disk(disk: Path) -> None:
    ballast = fill(disk)
    with pytest.raises(StateError, match=r"full|No space"):
        await open_store(disk / "node.db")
    ballast.unlink()
    store = await open_store(disk / "node.db")
    assert store.set_aside is None
    await store.add(record())
    await store.close()


async def test_a_disk_that_is_read_only_at_the_start(disk: Path) -> None:
    store = await open_store(disk / "node.db")
    await store.add(record())
    await store.close()
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(StateError, match=r"cannot be used: .*Read-only"):
        await open_store(disk / "node.db")
    mount("-o", "remount,rw", str(disk))
    again = await open_store(disk / "node.db")
    assert list(await again.all()) == [record()]
    await again.close()
