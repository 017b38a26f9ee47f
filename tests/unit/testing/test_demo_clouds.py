"""What the demo does before a cloud of its own is there."""

from pathlib import Path

import pytest

from caa.errors import ConfigError
from caa.testing.demo.clouds import apart
from caa.testing.demo.daemons import Paths
from caa.testing.demo.fake import Fake


def test_nothing_of_a_real_account_reaches_daemons_or_fake() -> None:
    mine = {"PATH": "/bin", "AWS_PROFILE": "production", "AWS_CONFIG_FILE": "/root/c", "HTTPS_PROXY": "http://proxy"}
    kept = {"PATH": "/bin", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    assert apart(mine) == kept


async def test_a_cloud_that_is_not_in_the_source_tree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make demo PROVIDER=elsewhere"):
        async with Fake.started("elsewhere", Paths(tmp_path), environ={}):
            pytest.fail("it started")
