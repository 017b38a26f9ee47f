"""Instance types are fetched once, kept on disk, and served old while they are fetched again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from caa.errors import ProviderUnavailable
from caa.model.instance import Arch, InstanceType, Tee
from caa.provider.catalogue import Catalogue, Shelf
from caa.testing.clock import FakeClock

FULL = InstanceType(
    name="m6a.large",
    vcpus=2,
    memory_mib=8192,
    gpus=1,
    arch=Arch.ARM64,
    tees=frozenset({Tee.SNP}),
    zones=frozenset({"a", "b"}),
    price=0.1,
)


class Cloud:
    """Counts the fetches; `error` fails them."""

    def __init__(self) -> None:
        self.fetches = 0
        self.error: Exception | None = None

    async def __call__(self) -> Sequence[InstanceType]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return [FULL]


def catalogue(cloud: Cloud, folder: Path, clock: FakeClock, subject: str = "aws eu-west-1") -> Catalogue:
    return Catalogue(cloud, Shelf(path=folder / "deep" / "aws.json", ttl=100, subject=subject), clock=clock)


async def test_one_fetch_for_many_askers_and_the_next_start(tmp_path: Path) -> None:
    cloud, clock = Cloud(), FakeClock()
    first = catalogue(cloud, tmp_path, clock)
    assert await asyncio.gather(*(first.types() for _ in range(5))) == [(FULL,)] * 5
    assert await catalogue(cloud, tmp_path, clock).types() == (FULL,)
    assert cloud.fetches == 1


async def test_the_old_ones_serve_while_new_ones_come_or_do_not(tmp_path: Path) -> None:
    cloud, clock = Cloud(), FakeClock()
    one = catalogue(cloud, tmp_path, clock)
    await one.types()
    clock.time += 101
    cloud.error = ProviderUnavailable("down")
    assert await one.types() == (FULL,)
    await one.settled()
    cloud.error = None
    assert await one.types() == (FULL,)
    await one.settled()
    assert await one.types() == (FULL,)
    assert cloud.fetches == 3


async def test_without_old_ones_the_error_is_told_and_the_next_asker_tries_again(tmp_path: Path) -> None:
    cloud, clock = Cloud(), FakeClock()
    cloud.error = ProviderUnavailable("down")
    one = catalogue(cloud, tmp_path, clock)
    with pytest.raises(ProviderUnavailable):
        await one.types()
    cloud.error = None
    assert await one.types() == (FULL,)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"subject": "aws eu-west-1", "types": [{}]}'])
async def test_a_damaged_file_is_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    cloud = Cloud()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "aws.json").write_text(text)
    assert await catalogue(cloud, tmp_path, FakeClock()).types() == (FULL,)
    assert cloud.fetches == 1


async def test_another_subject_is_another_catalogue(tmp_path: Path) -> None:
    cloud, clock = Cloud(), FakeClock()
    await catalogue(cloud, tmp_path, clock).types()
    await catalogue(cloud, tmp_path, clock, subject="aws us-east-1").types()
    assert cloud.fetches == 2


async def test_a_folder_that_cannot_be_written_is_tolerated() -> None:
    assert await catalogue(Cloud(), Path("/proc/nobody"), FakeClock()).types() == (FULL,)
