"""The SQLite store keeps the contract, survives its process, and says what is wrong with its file."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.sandbox import store_file
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


def overwrite(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def tear(path: Path, *, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 4096)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM sandboxes").fetchone()[0])


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


GARBAGE = [b"this is not a database, it only looks like a file" * 100, b"SQLite format 3\0" + b"\xff" * 4096]


def aside(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.iterdir() if ".corrupt-" in one.name)


@pytest.mark.parametrize("content", GARBAGE)
async def test_a_damaged_file_is_set_aside(path: Path, content: bytes) -> None:
    write(path, content)
    store = await open_store(path)
    assert list(await store.all()) == []
    await store.add(record())
    assert await store.next_tunnel_index() >= 1 << 16, "far from what the damaged one had given out"
    assert store.set_aside == aside(path)[0]
    await store.close()
    assert contents(aside(path)[0]) == content
    again = await open_store(path)
    assert again.set_aside is None
    assert list(await again.all()) == [record()]
    await again.close()


@pytest.mark.parametrize(
    "damage", ["DROP TABLE counters", "DROP TABLE sandboxes", "DELETE FROM counters", "PRAGMA writable_schema = RESET"]
)
async def test_a_file_that_lacks_something(path: Path, damage: str) -> None:
    await (await open_store(path)).close()
    change(path, damage)
    store = await open_store(path)
    assert (store.set_aside is None) == damage.startswith("PRAGMA"), "and the last one is no damage"
    await store.add(record())
    await store.close()


async def test_a_torn_page(path: Path) -> None:
    """A disk that lost a write: the header is fine, a page within is not."""
    store = await open_store(path)
    for number in range(200):
        await store.add(replace(record(f"s{number}"), error="x" * 500))
    await store.close()
    tear(path, at=5 * 4096)
    store = await open_store(path)
    assert store.set_aside is not None
    assert list(await store.all()) == []
    await store.close()


async def test_two_damaged_files_in_one_second(path: Path) -> None:
    for content in GARBAGE:
        overwrite(path, content)
        await (await open_store(path)).close()
    assert len(aside(path)) == 2


async def test_the_log_beside_it_goes_with_it(path: Path) -> None:
    for name in ("node.db", "node.db-wal", "node.db-shm"):
        overwrite(path.with_name(name), name.encode())
    kept = store_file._set_aside(path)
    assert [contents(one).decode() for one in aside(path)] == ["node.db", "node.db-shm", "node.db-wal"]
    assert {one.name.removeprefix(kept.name) for one in aside(path)} == {"", "-wal", "-shm"}


async def test_a_newer_file_is_refused(path: Path) -> None:
    await (await open_store(path)).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="version 99"):
        await open_store(path)


@pytest.mark.parametrize("text", ["{}", "", "[1]", '{"id": 7}', "\\x00"])
async def test_damaged_records_are_dropped_and_the_others_kept(path: Path, text: str) -> None:
    store = await open_store(path)
    for name in "abc":
        await store.add(record(name))
    index = await store.next_tunnel_index()
    await store.close()
    change(path, f"UPDATE sandboxes SET record = '{text}' WHERE id = 'b'")
    store = await open_store(path)
    assert [one.id for one in await store.all()] == ["a", "c"]
    assert await store.next_tunnel_index() == index + 1
    assert store.set_aside == aside(path)[0]
    await store.close()
    assert stat.S_IMODE(aside(path)[0].stat().st_mode) == 0o600
    assert rows(aside(path)[0]) == 3, "the copy has all of it"


async def test_a_newer_record_is_refused_and_nothing_changed(path: Path) -> None:
    store = await open_store(path)
    await store.add(record())
    await store.close()
    change(path, "UPDATE sandboxes SET version = 99")
    with pytest.raises(StateError, match="version 99"):
        await open_store(path)
    assert rows(path) == 1
    assert aside(path) == []


async def test_a_record_that_turns_bad_while_it_is_open(store: SqliteStore, path: Path) -> None:
    await store.add(record())
    change(path, "UPDATE sandboxes SET record = '{}'")
    with pytest.raises(StateError, match="cannot be read"):
        await store.all()
    change(path, "UPDATE sandboxes SET version = 99")
    with pytest.raises(StateError, match="version 99"):
        await store.get(SandboxId("a"))


STEP = ("ALTER TABLE sandboxes ADD COLUMN note TEXT NOT NULL DEFAULT 'old'", "UPDATE counters SET next = next + 100")


async def test_an_older_file_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version adds a step: records and counters of today's files stay."""
    store = await open_store(path)
    await store.add(record())
    assert await store.next_tunnel_index() == 0
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        store_file.migrate(db, path, migrations=(*store_file.MIGRATIONS, STEP))
        store_file.migrate(db, path, migrations=(*store_file.MIGRATIONS, STEP))
        assert db.execute("PRAGMA user_version").fetchone() == (store_file.SCHEMA_VERSION + 1,)
        assert db.execute("SELECT id, note FROM sandboxes").fetchall() == [("a", "old")]
        assert db.execute("SELECT next FROM counters").fetchone() == (101,)
    with pytest.raises(StateError, match="update caa"):
        await open_store(path)


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    await (await open_store(path)).close()
    broken = (*store_file.MIGRATIONS, (STEP[0], "UPDATE nowhere SET x = 1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            store_file.migrate(db, path, migrations=broken)
        assert db.execute("PRAGMA user_version").fetchone() == (store_file.SCHEMA_VERSION,)
    store = await open_store(path)
    await store.add(record())
    await store.close()


async def test_a_file_of_version_1_is_read_for_ever(path: Path) -> None:
    """As the first release wrote it; this text must never be changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
    store = await open_store(path)
    (found,) = await store.all()
    assert (found.id, found.phase, found.instance, found.tunnel.vni) == ("a" * 8, "running", "i-1", 555041)
    assert found.network.routes[0].gateway == ip_address("10.1.0.1")
    assert await store.next_tunnel_index() == 42
    await store.close()


VERSION_1 = """
CREATE TABLE sandboxes (id TEXT PRIMARY KEY, version INTEGER NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT;
INSERT INTO counters VALUES ('tunnel_index', 42);
PRAGMA user_version = 1;
INSERT INTO sandboxes VALUES ('aaaaaaaa', 1, '{"id":"aaaaaaaa","pod":{"pod_name":"web","pod_namespace":"default","netns":"/run/netns/web","sizing":{"instance_type":"","vcpus":2,"memory_mib":0,"gpus":0,"gpu_model":""},"image":"","initdata":""},"phase":"running","instance_name":"podvm-web-aaaaaaaa","token":"00","boot_id":"b","created_at":1.5,"reached":"link","instance":"i-1","addresses":["192.0.2.10"],"network":{"interface":"eth0","hwaddr":"0a:00:00:00:00:01","mtu":1500,"addresses":["10.1.0.5/24"],"routes":[{"destination":"0.0.0.0/0","gateway":"10.1.0.1","device":"eth0","source":null,"protocol":3,"scope":0,"table":254,"metric":0,"onlink":false}],"neighbours":[]},"tunnel":{"kind":"vxlan","index":41,"vni":555041,"port":4789,"worker":"192.0.2.1/24","mtu":1450},"error":""}');
"""  # noqa: E501


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
