"""Settings that change while the node runs: what is applied, what is an error, and that wrong ones change nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from caa.config.kinds import STRING, integer
from caa.config.load import Loaded, Settings, load
from caa.config.setting import Setting
from caa.errors import ConfigError
from caa.node.reload import Reload, changes

LIVE: Setting[int] = Setting(name="live", env="LIVE", kind=integer(), default=1, help="", live=True)
FIXED: Setting[str] = Setting(name="fixed", env="FIXED", kind=STRING, default="a", help="")
SECRET: Setting[str] = Setting(name="key", env="KEY", kind=STRING, default="", help="", live=True, secret=True)
ROWS = (LIVE, FIXED, SECRET)


def settings(**environ: str) -> Settings:
    return load(ROWS, environ)


class Target:
    """What settings are applied to, and where they are read from."""

    def __init__(self) -> None:
        self.environ: dict[str, str] = {}
        self.applied: list[Mapping[str, object]] = []
        self.refuses = False

    def read(self) -> Settings:
        return settings(**self.environ)

    def apply(self, fresh: Settings, changed: Sequence[Loaded]) -> None:
        if self.refuses:
            raise ConfigError("the driver does not take it")
        self.applied.append({item.row.name: item.value for item in changed})

    def reload(self) -> Reload:
        return Reload(self.read(), self.read, self.apply)


def once(reload: Reload, target: Target, **environ: str) -> list[Any]:
    target.environ = environ
    with capture_logs() as lines:
        reload.once()
    return [(line["log_level"], line["event"]) for line in lines]


@pytest.fixture(autouse=True)
def _fresh_logs() -> None:
    structlog.reset_defaults()


def test_what_is_live_is_applied_and_told() -> None:
    target = Target()
    reload = target.reload()
    assert once(reload, target, LIVE="2") == [("info", "settings changed")]
    assert target.applied == [{"live": 2}]
    assert reload.settings[LIVE] == 2
    assert once(reload, target, LIVE="2") == []
    assert once(reload, target) == [("info", "settings changed")]
    assert target.applied[1:] == [{"live": 1}]


def test_a_secret_is_not_told() -> None:
    target = Target()
    reload = target.reload()
    target.environ = {"KEY": "hunter2"}
    with capture_logs() as lines:
        reload.once()
    assert target.applied == [{"key": "hunter2"}]
    assert "hunter2" not in str(lines)


def test_what_is_not_live_is_an_error_that_names_it_once() -> None:
    target = Target()
    reload = target.reload()
    words = "changed settings that take effect only at the next start of caa node"
    assert once(reload, target, FIXED="b") == [("error", words)]
    assert once(reload, target, FIXED="b") == []
    assert once(reload, target, FIXED="b", LIVE="3") == [("info", "settings changed")]
    assert (reload.settings[FIXED], reload.settings[LIVE]) == ("a", 3)
    assert once(reload, target, LIVE="3") == []
    assert once(reload, target, LIVE="3", FIXED="c") == [("error", words)]


def test_a_wrong_value_changes_nothing() -> None:
    target = Target()
    reload = target.reload()
    target.environ = {"LIVE": "many", "KEY": "x"}
    with capture_logs() as lines:
        reload.once()
    assert target.applied == []
    assert "LIVE: 'many' from the environment is not valid" in lines[0]["error"]
    assert once(reload, target, LIVE="5") == [("info", "settings changed")]


def test_what_cannot_be_applied_is_tried_again() -> None:
    target = Target()
    reload = target.reload()
    target.refuses = True
    assert [level for level, _ in once(reload, target, LIVE="2")] == ["error"]
    assert reload.settings[LIVE] == 1
    target.refuses = False
    assert [level for level, _ in once(reload, target, LIVE="2")] == ["info"]


def test_rows_of_another_driver_are_no_change() -> None:
    other: Setting[str] = Setting(name="zone", env="ZONE", kind=STRING, default="z", help="", live=True)
    assert changes(settings(), load((*ROWS, other), {"ZONE": "y"})) == []
