"""Recorded stops: which files count, and that each is removed once it is acted on."""

from pathlib import Path
from typing import Any, cast

import pytest

from caa.errors import StateError
from caa.model.ids import SandboxId
from caa.node.stops import StopFiles, stop_recorded


class Service:
    def __init__(self, broken: str = "") -> None:
        self.stopped: list[SandboxId] = []
        self.broken = broken

    async def stop(self, sandbox: SandboxId) -> None:
        if sandbox == self.broken:
            raise StateError("disk full")
        self.stopped.append(sandbox)


def put(folder: Path, *names: str) -> None:
    (folder / "stops").mkdir(exist_ok=True)
    for name in names:
        (folder / "stops" / name).touch()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "stops").iterdir())


async def test_each_is_stopped_and_removed(tmp_path: Path) -> None:
    put(tmp_path, "b", "a", ".a.tmp", "not an id")
    service = Service()
    await stop_recorded(cast(Any, service), StopFiles(tmp_path))
    assert service.stopped == ["a", "b"]
    assert names(tmp_path) == [".a.tmp", "not an id"]


async def test_one_that_fails_stays(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")
    service = Service(broken="a")
    await stop_recorded(cast(Any, service), StopFiles(tmp_path))
    assert service.stopped == ["b"]
    assert names(tmp_path) == ["a"]


def test_no_folder_is_no_stop(tmp_path: Path) -> None:
    stops = StopFiles(tmp_path)
    assert stops.recorded() == []
    assert not stops.has(SandboxId("a"))
    stops.remove(SandboxId("a"))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "stops").write_text("")
    with pytest.raises(StateError, match="cannot be read"):
        StopFiles(tmp_path).recorded()


async def test_kept_ones_are_acted_on_and_stay(tmp_path: Path) -> None:
    put(tmp_path, "a")
    service, stops = Service(), StopFiles(tmp_path, kept=True)
    await stop_recorded(cast(Any, service), stops)
    assert (service.stopped, names(tmp_path)) == (["a"], ["a"])
    stops.kept = False
    await stop_recorded(cast(Any, service), stops)
    assert (service.stopped, names(tmp_path)) == (["a", "a"], [])
