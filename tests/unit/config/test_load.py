"""Precedence, origins, and every way a value can be wrong."""

import pytest

from caa.config.kinds import BOOL, STRING, TAGS, duration, integer
from caa.config.load import REDACTED, Check, Origin, Settings, load
from caa.config.setting import AnySetting, Setting
from caa.errors import ConfigError

PORT: Setting[int] = Setting(
    name="port", env="PORT", flag="port", kind=integer(1, 65535), default=15150, help="A port."
)
WAIT: Setting[float] = Setting(name="wait", env="WAIT", flag="wait", kind=duration(), default=5.0, help="How long.")
KEY: Setting[str] = Setting(
    name="key", env="API_KEY", flag="api-key", kind=STRING, default="", help="The key.", secret=True, required=True
)
PIN: Setting[int] = Setting(name="pin", env="PIN", kind=integer(0, 9999), default=0, help="A pin.", secret=True)
FAST: Setting[bool] = Setting(name="fast", flag="fast", kind=BOOL, default=False, help="No environment key.")
ROWS: tuple[AnySetting, ...] = (PORT, WAIT, FAST)


def test_default_environment_flag_in_this_order() -> None:
    assert load(ROWS, {})[PORT] == 15150
    assert load(ROWS, {"PORT": "1"})[PORT] == 1
    settings = load(ROWS, {"PORT": "1"}, flags={"port": "2"})
    assert settings.get(PORT) == 2
    assert [settings.origin(row) for row in ROWS] == [Origin.FLAG, Origin.DEFAULT, Origin.DEFAULT]
    assert settings.is_set(PORT)
    assert not settings.is_set(WAIT)


def test_an_empty_environment_value_is_unset_and_an_empty_flag_is_not() -> None:
    assert load(ROWS, {"PORT": " \n"})[PORT] == 15150
    with pytest.raises(ConfigError, match="from the flag"):
        load(ROWS, {}, flags={"port": ""})


def test_blanks_around_a_value_are_dropped() -> None:
    assert load((KEY,), {"API_KEY": "s3cret-value\n"})[KEY] == "s3cret-value"


def test_a_flag_replaces_the_list_of_the_environment() -> None:
    tags: Setting[object] = Setting(name="tags", env="TAGS", flag="tags", kind=TAGS, default={}, help="Tags.")  # type: ignore[arg-type]
    assert load((tags,), {"TAGS": "a=1"}, flags={"tags": "b=2"})[tags] == {"b": "2"}


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load((*ROWS, KEY), {"PORT": "80a"}, flags={"wait": "soon", "fast": "maybe"})
    text = str(caught.value)
    assert text.startswith("4 settings are wrong:")
    assert "PORT (--port): '80a' from the environment is not valid, allowed is a whole number from 1 to 65535" in text
    assert "WAIT (--wait): 'soon' from the flag" in text
    assert "--fast: 'maybe'" in text
    assert "API_KEY (--api-key) is required and not set: The key." in text


def test_secrets_are_redacted_in_errors_and_in_text() -> None:
    with pytest.raises(ConfigError) as caught:
        load((PIN,), {"PIN": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert REDACTED in str(caught.value)
    settings = load((KEY,), {"API_KEY": "hunter2-hunter2"})
    assert [item.text for item in settings] == [REDACTED]
    assert "hunter2" not in repr(settings) + repr(list(settings))
    assert settings.secrets() == ("hunter2-hunter2",)


def test_a_required_setting_may_not_be_empty() -> None:
    with pytest.raises(ConfigError, match="the value is empty"):
        load((KEY,), {}, flags={"api-key": " "})


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        load(ROWS, {"PORT": "x" * 100_000})
    assert len(str(caught.value)) < 300
    assert "(100000 characters)" in str(caught.value)


def test_rules_see_only_legal_values() -> None:
    def find(settings: Settings) -> str:
        return "too slow" if settings[WAIT] > settings[PORT] else ""

    rule = Check((PORT, WAIT), find)
    assert load(ROWS, {"PORT": "10"}, checks=[rule])[PORT] == 10
    with pytest.raises(ConfigError, match=r"^too slow$"):
        load(ROWS, {"PORT": "1"}, checks=[rule])
    with pytest.raises(ConfigError) as caught:
        load(ROWS, {"PORT": "x"}, checks=[rule])
    assert "too slow" not in str(caught.value)


@pytest.mark.parametrize("change", [{"name": "port"}, {"env": "PORT"}, {"flag": "port"}])
def test_two_rows_with_the_same_key_are_our_mistake(change: dict[str, str]) -> None:
    twin: AnySetting = Setting(
        **{"name": "x", "env": "X", "flag": "x", "kind": STRING, "default": "", "help": "", **change}
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two settings share"):
        load((PORT, twin), {})


def test_asking_for_a_row_that_was_not_loaded() -> None:
    settings = load(ROWS, {})
    assert KEY not in settings
    with pytest.raises(LookupError, match="API_KEY"):
        settings[KEY]


def test_the_plain_mapping() -> None:
    assert dict(load(ROWS, {"WAIT": "1s"}).named()) == {"port": 15150, "wait": 1.0, "fast": False}
    assert len(load(ROWS, {})) == 3
