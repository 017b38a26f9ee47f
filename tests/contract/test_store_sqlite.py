"""The SQLite store keeps the contract, survives its process, and says what is wrong with its file."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.sandbox.store import SqliteStore, open_store
from caa.testing.store_contract import StoreContract, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "node.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = await open_store(path)
    yield made
    await made.close()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


class TestSqliteStore(StoreContract):
    """The contract, on a file."""


async def test_it_outlives_its_process(path: Path) -> None:
    first = await open_store(path)
    await first.add(record())
    assert await first.next_tunnel_index() == 0
    await first.close()
    await first.close()
    second = await open_store(path)
    assert list(await second.all()) == [record()]
    assert await second.next_tunnel_index() == 1
    await second.close()


async def test_nobody_else_can_read_it(store: SqliteStore, path: Path) -> None:
    await store.add(record())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {
        one.name: 0o600 for one in path.parent.iterdir()
    }


async def test_durable_settings(store: SqliteStore) -> None:
    ask = store._connection.execute
    assert ask("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ask("PRAGMA synchronous").fetchone()[0] == 2


async def test_a_second_one_is_refused(store: SqliteStore, path: Path) -> None:
    with pytest.raises(StateError, match="another caa node"):
        await open_store(path)
    await store.add(record())


async def test_a_closed_one_refuses(path: Path) -> None:
    store = await open_store(path)
    await store.close()
    with pytest.raises(StateError, match="closed"):
        await store.all()


@pytest.mark.parametrize(
    "content", [b"this is not a database, it only looks like a file" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
async def test_a_damaged_file_is_named(path: Path, content: bytes) -> None:
    write(path, content)
    with pytest.raises(StateError, match=r"node\.db"):
        await open_store(path)
    remove(path)
    await (await open_store(path)).close()  # the lock was let go


async def test_a_newer_file_is_refused(path: Path) -> None:
    await (await open_store(path)).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="version 99"):
        await open_store(path)


async def test_a_damaged_record_is_named(store: SqliteStore, path: Path) -> None:
    await store.add(record())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sandboxes SET record = '{}'")
    db.close()
    with pytest.raises(StateError, match="cannot be read"):
        await store.all()


async def test_a_newer_record_is_refused(store: SqliteStore, path: Path) -> None:
    await store.add(record())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sandboxes SET version = 99")
    db.close()
    with pytest.raises(StateError, match="version 99"):
        await store.get(SandboxId("a"))


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="cannot be used"):
        await open_store(tmp_path / "state" / "node.db")


async def test_a_cancelled_caller_does_not_take_its_write_back(store: SqliteStore) -> None:
    adding = asyncio.create_task(store.add(record()))
    await asyncio.sleep(0)
    adding.cancel()
    await asyncio.wait({adding})
    await store.next_tunnel_index()  # behind it in the queue
    assert await store.get(SandboxId("a")) == record()
