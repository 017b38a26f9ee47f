"""The rows that drivers share load beside the node's, and become a budget of calls."""

import pytest

from caa.config.load import load
from caa.config.node import FORWARDER_PORT, NODE_ROWS
from caa.errors import ConfigError
from caa.provider.rows import CLOUD_ROWS, PURCHASE_OPTIONS, disable_cvm, given, pacing, root_volume_size
from caa.testing.clock import FakeClock

ROWS = (*CLOUD_ROWS, PURCHASE_OPTIONS, disable_cvm(default=False), root_volume_size(default=30))


async def test_they_share_no_name_with_the_nodes_rows() -> None:
    settings = load((*NODE_ROWS, *ROWS), {"CLOUD_CALLS_PER_SECOND": "0.5", "FORWARDER_PORT": "15151"})
    clock = FakeClock(0)
    budget = pacing(settings, clock)
    for _ in range(3):
        await budget.turn()
    assert clock.now() == 4
    assert given(settings, FORWARDER_PORT) == 15151


def test_a_row_of_the_node_that_was_not_loaded_has_its_default() -> None:
    assert given(load(ROWS, {}), FORWARDER_PORT) == 15150


def test_ways_to_buy() -> None:
    assert load(ROWS, {"PURCHASE_OPTIONS": "Spot, on-demand"})[PURCHASE_OPTIONS] == ("spot", "on-demand")
    with pytest.raises(ConfigError, match="PURCHASE_OPTIONS"):
        load(ROWS, {"PURCHASE_OPTIONS": "reserved"})
