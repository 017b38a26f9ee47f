"""Keys of the settings directory that set nothing are named, with what was probably meant."""

from caa.config.identity import CLOUD_PROVIDER, NODE_NAME
from caa.config.keys import warnings
from caa.config.kinds import STRING
from caa.config.setting import Setting
from caa.config.tls_rows import DISABLE_TLS

REGION: Setting[str] = Setting(name="region", env="AWS_REGION", kind=STRING, default="", help="")
ROWS = (CLOUD_PROVIDER, NODE_NAME, DISABLE_TLS)  # the last one has a flag alone


def told(*keys: str) -> list[str]:
    return list(warnings(keys, ROWS, others={"the driver `aws`": (REGION,)}))


def test_what_is_known_is_not_told() -> None:
    assert told() == []
    assert told("NODE_NAME", "CLOUD_PROVIDER") == []


def test_a_typing_mistake_is_told_with_what_was_meant() -> None:
    assert told("CLOUD_PROVDER") == [
        "CAA_CONFIG_DIR: CLOUD_PROVDER is no setting and is not used; did you mean CLOUD_PROVIDER?"
    ]


def test_what_is_like_nothing_is_told_alone() -> None:
    assert told("XYZ", "", "NODE_NAME") == [
        "CAA_CONFIG_DIR:  is no setting and is not used",
        "CAA_CONFIG_DIR: XYZ is no setting and is not used",
    ]


def test_a_setting_of_another_driver_says_whose_it_is() -> None:
    assert told("AWS_REGION") == ["CAA_CONFIG_DIR: AWS_REGION is not used here, it belongs to the driver `aws`"]
