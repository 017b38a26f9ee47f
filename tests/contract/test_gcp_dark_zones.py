"""Lists leave out, without an error, zones that Compute Engine does not reach: absence proves nothing then."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import ProviderUnavailable
from caa.model.instance import InstanceState
from tests.fakes.gcp.world import OWNER, World, launch, world

HERE, OTHER, ELSEWHERE = "europe-west3-a", "europe-west3-b", "europe-west4-a"
UNSURE = "does not reach {} now, so it cannot tell"


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_an_instance_there_is_neither_gone_nor_unlisted(gcp: World) -> None:
    """A pod is not ended, a record not cleared, a delete not called done, because of a zone that cannot be seen."""
    one = gcp.make()
    made = await one.create(launch())
    gcp.cloud.dark = {HERE}
    for asked in (one.state(made.id), one.list_owned(OWNER), one.delete(made.id), one.create(launch())):
        with pytest.raises(ProviderUnavailable, match=UNSURE.format(HERE)):
            await asked
    assert gcp.cloud.ledger.made["instance"] == 1
    gcp.cloud.dark = set()
    assert await one.state(made.id) is InstanceState.RUNNING
    await one.delete(made.id)
    await one.close()


async def test_a_zone_of_earlier_settings_counts_too(gcp: World) -> None:
    before = gcp.make(GCP_ZONE=OTHER)
    made = await before.create(launch())
    one = gcp.make()
    gcp.cloud.dark = {OTHER}
    for asked in (one.state(made.id), one.list_owned(OWNER), one.delete(made.id)):
        with pytest.raises(ProviderUnavailable, match=UNSURE.format(OTHER)):
            await asked
    gcp.cloud.dark = set()
    await one.delete(made.id)
    await before.close()
    await one.close()


async def test_one_far_away_stops_no_pod_from_starting_and_ending(gcp: World) -> None:
    one = gcp.make(FALLBACK_ZONES=OTHER)
    gcp.cloud.dark = {ELSEWHERE}
    made = await one.create(launch())
    assert await one.state(made.id) is InstanceState.RUNNING
    await one.delete(made.id)
    await one.close()


async def test_one_of_ours_is_not_taken_for_empty(gcp: World) -> None:
    """What a crashed node made there would be made twice."""
    first = gcp.make(GCP_ZONE=OTHER, FALLBACK_ZONES=HERE)
    made = await first.create(launch())
    gcp.cloud.dark = {OTHER}
    again = gcp.make(GCP_ZONE=OTHER, FALLBACK_ZONES=HERE)
    with pytest.raises(ProviderUnavailable, match=UNSURE.format(OTHER)):
        await again.create(launch())
    gcp.cloud.dark = set()
    assert (await again.create(launch())).id == made.id
    assert gcp.cloud.ledger.made["instance"] == 1
    await again.delete(made.id)
    await first.close()
    await again.close()
