"""Whether records may be missing from the store: a new file does not know, and says so until the world was asked."""

import sqlite3
from pathlib import Path

import pytest

from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.sandbox.store import open_store


def record(name: str) -> Sandbox:
    pod = PodSpec(pod_name="p", pod_namespace="n", netns="/run/netns/x")
    return Sandbox(
        id=SandboxId(name), pod=pod, phase=Phase.CREATED, instance_name="v", token="t", boot_id="b", created_at=0.0
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "node.db"


def damage(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    path.with_name("node.db-wal").unlink(missing_ok=True)


async def reasons(path: Path) -> str:
    store = await open_store(path)
    await store.close()
    return store.incomplete


async def made(path: Path) -> None:
    store = await open_store(path)
    for name in "abc":
        await store.add(record(name))
    await store.mark_complete()
    assert store.incomplete == ""
    await store.close()


async def test_a_new_one_is_incomplete_until_it_is_said(path: Path) -> None:
    assert await reasons(path) == "there was no store"
    assert "ended before" in await reasons(path), "the process died in between"
    store = await open_store(path)
    await store.mark_complete()
    await store.mark_complete()
    await store.close()
    assert await reasons(path) == ""


async def test_one_that_vanished(path: Path) -> None:
    await made(path)
    for one in path.parent.iterdir():
        one.unlink()
    assert await reasons(path) == "there was no store"


async def test_a_damaged_one(path: Path) -> None:
    await made(path)
    damage(path)
    assert "set aside as" in await reasons(path)
    assert "ended before" in await reasons(path)


async def test_one_with_a_damaged_record(path: Path) -> None:
    await made(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sandboxes SET record = '{}' WHERE id = 'b'")
    db.close()
    assert "set aside as" in await reasons(path)
    assert "ended before" in await reasons(path), "the record is still missing"


async def test_one_of_an_earlier_version_is_asked_about_once(path: Path) -> None:
    await made(path)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM counters WHERE name = 'complete'")
    db.close()
    assert await reasons(path) != ""
