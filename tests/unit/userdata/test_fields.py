"""Looks into an object that a pod's owner may have written."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.userdata.fields import Fields

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LOOKS: list[Callable[[Fields], object]] = [
    lambda one: one.text("x"),
    lambda one: one.texts("x"),
    lambda one: one.number("x"),
    lambda one: one.flag("x"),
    lambda one: one.part("x"),
    lambda one: one.parts("x"),
    lambda one: one.address("x"),
    lambda one: one.interface("x"),
    lambda one: one.interface("x", optional=True),
    lambda one: one.mac("x"),
]


def field(value: object) -> Fields:
    return Fields({"x": value}, "apf.json")


@pytest.mark.parametrize("one", [Fields({}, "apf.json"), field(None)])
def test_missing_and_null_are_empty(one: Fields) -> None:
    assert (one.text("x"), one.texts("x"), one.number("x"), one.flag("x"), one.parts("x")) == ("", [], 0, False, [])
    assert one.address("x") is None
    assert one.interface("x", optional=True) == ""


@pytest.mark.parametrize("look", ["part", "interface", "mac"])
def test_what_cannot_be_empty(look: str) -> None:
    with pytest.raises(InvalidInput, match=r"apf\.json: 'x' has to be"):
        getattr(Fields({}, "apf.json"), look)("x")


@pytest.mark.parametrize(
    ("look", "value"),
    [
        ("text", 1), ("text", ["a"]), ("texts", "ab"), ("texts", ["a", 1]), ("texts", {"a": "b"}), ("number", -1),
        ("number", True), ("number", 1.0), ("number", "1"), ("number", 2**32), ("flag", 0), ("flag", "true"),
        ("part", []), ("parts", {}), ("parts", [{}, 1]), ("address", "10.0.0.256"), ("address", "10.0.0.1/24"),
        ("address", 5), ("interface", "a/b"), ("interface", "."), ("interface", ".."), ("interface", "a" * 16),
        ("interface", "a b"), ("interface", "a\n"), ("interface", "a\0"), ("mac", "02:00:00:00:00"),
        ("mac", "02-00-00-00-00-01"), ("mac", "02:00:00:00:00:01\n"),
    ],
)  # fmt: skip
def test_surprises_name_the_field(look: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^apf\.json: 'x' has to be "):
        getattr(field(value), look)("x")


def test_a_number_has_its_own_upper_bound() -> None:
    assert field(65535).number("x", high=65535) == 65535
    with pytest.raises(InvalidInput, match="from 0 to 65535"):
        field(65536).number("x", high=65535)


def test_parts_know_where_they_stand() -> None:
    one = Fields({"pod-network": {"routes": [{}, {"dst": 7}]}}, "apf.json")
    with pytest.raises(InvalidInput, match=r"^apf\.json pod-network routes\[1\]: 'dst' has to be a string$"):
        one.part("pod-network").parts("routes")[1].text("dst")


def test_values() -> None:
    assert field("fd00::1").address("x") == ip_address("fd00::1")
    assert field("eth0.100").interface("x") == "eth0.100"
    assert field("0A:58:0a:f4:01:05").mac("x") == "0A:58:0a:f4:01:05"
    assert field("").value("x", ip_network, text="10.0.0.0/8") == ip_network("10.0.0.0/8")
    with pytest.raises(InvalidInput, match="an IP address or network"):
        field("").value("x", ip_network, text="10.0.0.1/8")


@given(JSON, st.sampled_from(LOOKS))
def test_nothing_but_invalid_input_ever_comes_out(value: Any, look: Callable[[Fields], object]) -> None:
    with suppress(InvalidInput):
        look(field(value))


@given(st.text(max_size=30))
def test_an_error_never_shows_the_content(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        field({"content": text}).text("x")
    assert str(refused.value) == "apf.json: 'x' has to be a string"
