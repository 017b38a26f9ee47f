"""The sandboxes on disk: an SQLite file, one thread that owns it, every call durable when it returns.

WAL with synchronous=FULL: a commit is on the disk before the act it announces. One thread, because a connection of
sqlite3 belongs to its thread, and because it keeps calls in the order in which they were made even when a caller was
cancelled in the middle of one. A lock on a file beside it keeps a second control plane out.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.model.sandbox import Sandbox
from caa.sandbox import records

T = TypeVar("T")

SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE sandboxes (id TEXT PRIMARY KEY, version INTEGER NOT NULL, record TEXT NOT NULL) STRICT",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT",
    "INSERT INTO counters VALUES ('tunnel_index', 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_NEXT_INDEX = "UPDATE counters SET next = next + 1 WHERE name = 'tunnel_index' RETURNING next - 1"


class SqliteStore:
    """`StateStore` in one file. Make it with `open_store`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, thread: ThreadPoolExecutor, lock: int) -> None:
        self._path = path
        self._connection = connection
        self._thread = thread
        self._lock = lock

    async def all(self) -> Sequence[Sandbox]:
        rows = await self._run(lambda db: db.execute("SELECT version, record FROM sandboxes ORDER BY id").fetchall())
        return [_record(row) for row in rows]

    async def get(self, sandbox: SandboxId) -> Sandbox | None:
        query = "SELECT version, record FROM sandboxes WHERE id = ?"
        row = await self._run(lambda db: db.execute(query, (sandbox,)).fetchone())
        return None if row is None else _record(row)

    async def add(self, record: Sandbox) -> None:
        row = (record.id, records.VERSION, records.encode(record))
        command = "INSERT INTO sandboxes VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        if await self._run(lambda db: db.execute(command, row).rowcount) != 1:
            raise StateError(f"sandbox {record.id} is already in the store {self._path}")

    async def put(self, record: Sandbox) -> None:
        row = (records.VERSION, records.encode(record), record.id)
        command = "UPDATE sandboxes SET version = ?, record = ? WHERE id = ?"
        if await self._run(lambda db: db.execute(command, row).rowcount) != 1:
            raise StateError(f"sandbox {record.id} is not in the store {self._path}")

    async def remove(self, sandbox: SandboxId) -> None:
        await self._run(lambda db: db.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox,)).rowcount)

    async def next_tunnel_index(self) -> int:
        return int(await self._run(lambda db: db.execute(_NEXT_INDEX).fetchone()[0]))

    async def close(self) -> None:
        """Close the file and give up the lock; a second call does nothing."""
        if self._lock < 0:
            return
        lock, self._lock = self._lock, -1
        await self._on_thread(self._connection.close)
        self._thread.shutdown(wait=True)
        os.close(lock)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._lock < 0:
            raise StateError(f"the store {self._path} is closed")
        return await self._on_thread(lambda: self._committed(work))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        # Shielded: a caller that is cancelled must not take its work out of the thread's queue.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _committed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with _translated(self._path), self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            return work(transaction)


async def open_store(path: Path) -> SqliteStore:
    """Open or make the store; its folder becomes 0700 and the file 0600.

    Raises `StateError` when the disk refuses, the file is damaged or of a newer version, or another control plane
    holds it.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="caa-store")
    try:
        connection, lock = await asyncio.get_running_loop().run_in_executor(thread, _open, path)
    except BaseException:
        thread.shutdown(wait=True)
        raise
    return SqliteStore(path, connection, thread=thread, lock=lock)


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    with _translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(path.with_name(path.name + ".lock"))
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # before SQLite makes it 0644
            path.chmod(0o600)
            return _connected(path), lock
        except BaseException:
            os.close(lock)
            raise


def _locked(path: Path) -> int:
    """Hold an exclusive lock until the descriptor closes; the kernel lets go of it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateError(f"another caa node holds {path}; only one may run on a state directory") from error
    return descriptor


def _connected(path: Path) -> sqlite3.Connection:
    # isolation_level=None: the transactions are ours, not guessed by the module from the statement.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StateError(f"the store {path} has version {version}, this program knows {SCHEMA_VERSION}: update caa")
    if version == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)


def _record(row: tuple[int, str]) -> Sandbox:
    version, text = row
    if version > records.VERSION:
        raise StateError(f"a record of the store has version {version}, this program knows {records.VERSION}")
    return records.decode(text)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"the store {path} cannot be used: {error}") from error
