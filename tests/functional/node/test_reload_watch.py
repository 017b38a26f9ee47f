"""The settings directory watched for real: a changed file, a signal, and a directory that goes for a moment."""

import asyncio
from pathlib import Path

import pytest

from caa.config.kinds import integer
from caa.config.load import Settings, load
from caa.config.setting import Setting
from caa.node import reload as module
from caa.node.reload import Reload, watch

LIVE: Setting[int] = Setting(name="live", env="LIVE", kind=integer(), default=1, help="", live=True)


async def test_it_is_read_again_when_a_file_changes_and_on_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.01)
    environ: dict[str, str] = {}
    applied: list[int] = []
    told = asyncio.Event()

    def read() -> Settings:
        return load((LIVE,), environ)

    async def until(number: int) -> None:
        async with asyncio.timeout(10):
            while applied[-1:] != [number]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    reload = Reload(read(), read, lambda settings, _: applied.append(settings[LIVE]))
    watching = asyncio.create_task(watch(reload, tmp_path, told=told))
    await asyncio.sleep(0.05)
    environ["LIVE"] = "2"
    await asyncio.sleep(0.05)
    assert applied == [], "nobody has said that anything changed"
    await asyncio.to_thread((tmp_path / "LIVE").write_text, "2")
    await until(2)
    environ["LIVE"] = "3"
    told.set()
    await until(3)
    assert not told.is_set()
    environ["LIVE"] = "4"
    await asyncio.to_thread((tmp_path / "LIVE").unlink)
    await asyncio.to_thread(tmp_path.rmdir)
    await until(4)
    watching.cancel()
