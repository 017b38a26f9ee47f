"""Sandbox ids from hostile callers, and the names that are made of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.model.ids import SandboxId, instance_name, sandbox_id

HEX = "88a70031abcd" + "0" * 52
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@pytest.mark.parametrize("text", [HEX, "a", "0", "A.b_c-d", "x" * 128])
def test_valid_ids_stay_as_they_are(text: str) -> None:
    assert sandbox_id(text) == text


@pytest.mark.parametrize("text", ["..", ".a", "-a", "_a", "a/b", "a\0", "a\n", "a b", "é", "x" * 129])
def test_what_could_leave_a_folder_or_confuse_a_tool_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"\({len(text)} characters\) is not valid"):
        sandbox_id(text)


def test_none_at_all_has_its_own_sentence() -> None:
    with pytest.raises(InvalidInput, match="the request has none"):
        sandbox_id("")


def test_a_long_id_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidInput) as refused:
        sandbox_id("/" + "s" * 5000)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("pod", "sandbox", "limit", "name"),
    [
        ("nginx", "88a70031abcd", 63, "podvm-nginx-88a70031"),
        ("podtest", "123", 63, "podvm-podtest-123"),
        ("My_Pod.v2", "ABCDEF0123", 63, "podvm-my-pod-v2-abcdef01"),
        ("a--b", "1234567890", 63, "podvm-a--b-12345678"),  # dashes are not drawn together
        ("p" * 62, "88a70031abcd", 63, f"podvm-{'p' * 48}-88a70031"),
        ("p" * 62, "88a70031abcd", 47, f"podvm-{'p' * 32}-88a70031"),  # PowerVS
        ("p" * 48, "88a70031abcd", 63, f"podvm-{'p' * 48}-88a70031"),
        ("a" * 47 + "-b", "88a70031abcd", 63, f"podvm-{'a' * 47}--88a70031"),  # a cut may leave a dash
        ("", "88a70031abcd", 63, "podvm--88a70031"),
        ("nginx", "88a70031abcd", 10, "podvm--88a70031"),  # no room for a pod: the sandbox's part is what tells
    ],
)
def test_names_that_operators_know(pod: str, sandbox: str, limit: int, name: str) -> None:
    assert instance_name(pod, SandboxId(sandbox), limit=limit) == name


@given(st.text(max_size=300), IDS, st.integers(15, 100))
def test_every_name_is_a_label_within_the_limit(pod: str, sandbox: str, limit: int) -> None:
    name = instance_name(pod, sandbox_id(sandbox), limit=limit)
    assert len(name) <= limit
    assert re.fullmatch(r"podvm-[a-z0-9-]*", name)
    assert name == instance_name(pod, sandbox_id(sandbox), limit=limit)


@pytest.mark.parametrize("sandbox", ["abc-", "abcdefg.hij", "a_______"])
def test_a_name_never_ends_in_a_dash(sandbox: str) -> None:
    assert not instance_name("web", sandbox_id(sandbox)).endswith("-")
