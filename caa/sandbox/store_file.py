"""The file of the store: who holds it, which version it has, and what becomes of a damaged one.

A damaged file is renamed to `<name>.corrupt-<time>` and a new one begun; the records that are missing then are told
from the world (`caa.sandbox.rebuild`). Its counter of tunnels is lost too: the new one begins far from where the old
one can have been. A new file cannot know whether pods run already: it counts as complete only once the world was asked
and `mark_complete` was called, however often the process dies in between.
"""

import errno
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from caa.errors import StateError
from caa.sandbox import records

log = structlog.get_logger(__name__)

SCHEMA_VERSION = 1
COMPLETE = "complete"  # among the counters: no record is missing
# One step a version: step N makes a file of version N from one of version N - 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE sandboxes (id TEXT PRIMARY KEY, version INTEGER NOT NULL, record TEXT NOT NULL) STRICT",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT",
        "INSERT INTO counters VALUES ('tunnel_index', 0)",
    ),
)
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSALS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_NO_WRITES = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM})
_FAR = (1 << 16, 1 << 20)  # a node that made more tunnels than that has been up for years


class StoreHeld(StateError):
    """Another process has the file."""


class _Damaged(Exception):
    """The file is no store of ours; the text says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The file, ready for use: `lock` is the descriptor that keeps others out, `set_aside` the damaged one's path.
    `incomplete` says why records may be missing, "" when none are."""

    connection: sqlite3.Connection
    lock: int
    set_aside: Path | None
    incomplete: str


def opened(path: Path) -> Opened:
    """Open or make the file; its folder becomes 0700, it 0600. Raises `StateError`, `StoreHeld` among them."""
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        lock = _locked(path.with_name(path.name + ".lock"))
        try:
            there = path.exists()
            connection, set_aside = _sound(path)
            incomplete = _incomplete(connection, there=there, set_aside=set_aside)
        except BaseException:
            os.close(lock)
            raise
        return Opened(connection, lock, set_aside, incomplete)


def _incomplete(connection: sqlite3.Connection, *, there: bool, set_aside: Path | None) -> str:
    if connection.execute("SELECT count(*) FROM counters WHERE name = ?", (COMPLETE,)).fetchone() == (1,):
        return ""
    if set_aside is not None:
        return f"the store was damaged and is set aside as {set_aside}"
    if not there:
        return "there was no store"
    return "the store was made anew and the process ended before what runs was known"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What the disk and SQLite raise, as `StateError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"the store {path} cannot be used: {error}{_remedy(path, error)}") from error


def _remedy(path: Path, error: sqlite3.Error | OSError) -> str:
    """What a disk that takes no writes means for pods, and where to look."""
    refused = error.errno in _NO_WRITES if isinstance(error, OSError) else _code(error) in _REFUSALS
    if not refused:
        return ""
    return (
        f". The disk of the state directory {path.parent} (CAA_STATE_DIR) takes no writes, it is full, read-only or "
        "broken: no pod can start until it is mended; pods that run go on, and can be stopped"
    )


def _code(error: sqlite3.Error) -> int:
    """Without the details that SQLite keeps in the upper bits."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _locked(path: Path) -> int:
    """Hold an exclusive lock until the descriptor closes; the kernel lets go of it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreHeld(f"another caa node holds {path}; only one may run on a state directory") from error
    return descriptor


def _sound(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    try:
        connection = _connected(path)
    except _Damaged as damage:
        aside = _set_aside(path)
        log.error("the store is damaged and was set aside", store=str(path), now=str(aside), reason=str(damage))
        connection = _connected(path)
        begin = _FAR[0] + secrets.randbelow(_FAR[1] - _FAR[0])
        connection.execute("UPDATE counters SET next = ?", (begin,))
        return connection, aside
    return connection, _without_damaged_records(connection, path)


def _connected(path: Path) -> sqlite3.Connection:
    """Open, bring up to date and check. Raises `_Damaged`."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # before SQLite makes it 0644
    path.chmod(0o600)
    # isolation_level=None: the transactions are ours, not guessed by the module from the statement.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, path)
        _check(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and _code(error) in _DAMAGE:
            raise _Damaged(str(error)) from error
        raise
    return connection


def migrate(
    connection: sqlite3.Connection, path: Path, *, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS
) -> None:
    """Take the steps that the file has not seen, all or none. Raises `StateError` for a newer file."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise StateError(f"the store {path} has version {version}, this program knows {len(migrations)}: update caa")
    if version < len(migrations):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in (one for step in migrations[version:] for one in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _check(connection: sqlite3.Connection) -> None:
    found = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        raise _Damaged("; ".join(found))
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not {"sandboxes", "counters"} <= tables:
        raise _Damaged("it lacks a table")
    if connection.execute("SELECT count(*) FROM counters WHERE name = 'tunnel_index'").fetchone() != (1,):
        raise _Damaged("it lacks the counter of tunnels")


def _set_aside(path: Path) -> Path:
    aside = _free_name(path)
    for suffix in ("-wal", "-shm", ""):  # the file itself last: a crash in between sets the rest aside once more
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = path.with_name(f"{path.name}.corrupt-{stamp}")
    return name if not name.exists() else name.with_name(f"{name.name}-{secrets.token_hex(4)}")


def _without_damaged_records(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Drop the records that cannot be read, after a copy of the whole file was kept for people."""
    damaged = {}
    for name, version, text in connection.execute("SELECT id, version, record FROM sandboxes"):
        try:
            records.decode(text, version=version)
        except records.NewerRecord:
            connection.close()
            raise
        except StateError as error:
            damaged[name] = str(error)
    if not damaged:
        return None
    aside = _free_name(path)
    with closing(sqlite3.connect(aside)) as copy:
        connection.backup(copy)
    aside.chmod(0o600)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM sandboxes WHERE id = ?", [(name,) for name in damaged])
        connection.execute("DELETE FROM counters WHERE name = ?", (COMPLETE,))
    log.error("records of the store are damaged and were dropped", store=str(path), copy=str(aside), damaged=damaged)
    return aside
