"""What the demo does before a cloud of its own is there."""

from pathlib import Path

import pytest

from caa.errors import ConfigError
from caa.testing.demo.clouds import Cloud
from caa.testing.demo.daemons import Paths
from caa.testing.demo.fake import Fake


def test_settings_of_a_real_account_do_not_reach_the_daemons() -> None:
    mine = {"PATH": "/bin", "AWS_PROFILE": "production", "HTTPS_PROXY": "http://proxy"}
    cloud = Cloud(settings={"AWS_REGION": "eu-west-1"}, strangers=("AWS_", "HTTP"))
    assert cloud.environ(mine) == {"PATH": "/bin", "AWS_REGION": "eu-west-1"}
    assert Cloud(settings={"A": "1"}).environ(mine) == {**mine, "A": "1"}


async def test_a_cloud_that_is_not_in_the_source_tree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make demo PROVIDER=elsewhere"):
        async with Fake.started("elsewhere", Paths(tmp_path)):
            pytest.fail("it started")
