"""The sandboxes on disk: an SQLite file, one thread that owns it, every call durable when it returns.

WAL with synchronous=FULL: a commit is on the disk before the act it announces. One thread, because a connection of
sqlite3 belongs to its thread, and because it keeps calls in the order in which they were made even when a caller was
cancelled in the middle of one. A lock on a file beside it keeps a second control plane out.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.model.sandbox import Sandbox
from caa.sandbox import records, store_file

T = TypeVar("T")

_USE_INDEX = "UPDATE counters SET next = max(next, ? + 1) WHERE name = 'tunnel_index'"
_NEXT_INDEX = "UPDATE counters SET next = next + 1 WHERE name = 'tunnel_index' RETURNING next - 1"


class SqliteStore:
    """`StateStore` in one file. Make it with `open_store`.

    `set_aside` is where a damaged file went, None when there was none. `incomplete` says why records may be missing,
    "" when none are.
    """

    def __init__(self, path: Path, opened: store_file.Opened, *, thread: ThreadPoolExecutor) -> None:
        self.set_aside = opened.set_aside
        self.incomplete = opened.incomplete
        self._path = path
        self._connection = opened.connection
        self._thread = thread
        self._lock = opened.lock

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

    async def use_tunnel_index(self, index: int) -> None:
        await self._run(lambda db: db.execute(_USE_INDEX, (index,)).rowcount)

    async def mark_complete(self) -> None:
        """No record is missing any more, and the next process need not look for one."""
        command = "INSERT INTO counters VALUES (?, 1) ON CONFLICT DO NOTHING"
        await self._run(lambda db: db.execute(command, (store_file.COMPLETE,)).rowcount)
        self.incomplete = ""

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
        with store_file.translated(self._path), self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            return work(transaction)


async def open_store(path: Path) -> SqliteStore:
    """Open or make the store; its folder becomes 0700 and the file 0600.

    A damaged file is set aside and a new one made, damaged records are copied there and dropped. Raises `StateError`
    when the disk refuses, the file or a record is of a newer version, or another control plane holds it.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="caa-store")
    try:
        opened = await asyncio.get_running_loop().run_in_executor(thread, store_file.opened, path)
    except BaseException:
        thread.shutdown(wait=True)
        raise
    return SqliteStore(path, opened, thread=thread)


def _record(row: tuple[int, str]) -> Sandbox:
    return records.decode(row[1], version=row[0])
