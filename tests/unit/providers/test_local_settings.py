"""The settings of `local`, and its refusal to run in a cluster."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

import providers.local
from caa.config.load import load
from caa.errors import ConfigError
from providers.local import SETTINGS, settings


def test_defaults() -> None:
    values = load(SETTINGS, {})
    assert values[settings.STATE_DIR] == Path("/var/lib/caa/local")
    assert values[settings.SUBNET] == IPv4Network("10.199.0.0/24")
    assert values[settings.BRIDGE] == "caa-local0"
    assert values[settings.AGENT_COMMAND] == ()


def test_a_command_is_split_as_a_shell_would() -> None:
    values = load(SETTINGS, {"LOCAL_AGENT_COMMAND": "/bin/agent --name 'a b'"})
    assert values[settings.AGENT_COMMAND] == ("/bin/agent", "--name", "a b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LOCAL_SUBNET", "10.0.0.0/8"),
        ("LOCAL_SUBNET", "10.0.0.0/30"),
        ("LOCAL_SUBNET", "10.0.0.1/24"),
        ("LOCAL_SUBNET", "fd00::/64"),
        ("LOCAL_BRIDGE", "a/b"),
        ("LOCAL_BRIDGE", "sixteencharacter"),
        ("LOCAL_STATE_DIR", "relative"),
        ("LOCAL_AGENT_COMMAND", "'unbalanced"),
        ("CAA_ALLOW_INSECURE_LOCAL", "perhaps"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_key(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load(SETTINGS, {key: value})


def test_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="CAA_ALLOW_INSECURE_LOCAL=1"):
        providers.local.make(load(SETTINGS, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}))


def test_an_operator_may_insist() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "CAA_ALLOW_INSECURE_LOCAL": "1"}
    driver = providers.local.make(load(SETTINGS, environ))
    assert driver.capabilities.isolates is False
    assert driver.capabilities.sized_by_type is False
    assert driver.capabilities.console is True
    assert driver.capabilities.user_data_limit is None
