"""auth.json from image pull secrets."""

import base64
import json
from typing import Any

import pytest

from caa.errors import UserDataTooLarge
from caa.userdata.registry_auth import LIMIT, PullSecret, merge, require_fit


def _secret(auths: Any, name: str = "regcred") -> PullSecret:
    return PullSecret(name, json.dumps({"auths": auths}).encode())


def _auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_later_secret_wins_and_user_and_password_are_folded() -> None:
    account = _secret(
        {"quay.io": {"auth": _auth("a:1")}, "ghcr.io": {"username": "u", "password": "p:w", "email": "x"}}
    )
    pod = PullSecret("own", json.dumps({"quay.io": {"auth": _auth("b:2")}}).encode(), legacy=True)
    merged = merge([account, pod])
    assert json.loads(merged.text) == {
        "auths": {"quay.io": {"auth": _auth("b:2")}, "ghcr.io": {"auth": _auth("u:p:w")}}
    }
    assert merged.registries == ("quay.io", "ghcr.io")
    assert merged.skipped == ()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"auths": []}', b"\xff", b"[" * 100_000, b"null"])
def test_a_secret_that_cannot_be_read_is_named_and_skipped(data: bytes) -> None:
    merged = merge([PullSecret("broken", data), _secret({"quay.io": {"auth": _auth("a:1")}})])
    assert merged.registries == ("quay.io",)
    assert [text.split(":")[0] for text in merged.skipped] == ["broken"]


@pytest.mark.parametrize(
    "entry", [{}, None, "x", {"auth": ""}, {"auth": "%%"}, {"auth": _auth("nocolon")}, {"username": "u"}, {"auth": 5}]
)
def test_entries_without_credentials_are_dropped(entry: Any) -> None:
    merged = merge([_secret({"quay.io": entry})])
    assert merged.text == ""
    assert merged.skipped == ("regcred: no usable credentials for 'quay.io'",)


def test_no_secrets_no_file() -> None:
    assert merge([]).text == ""
    assert not merge([]).too_large
    require_fit(merge([]))


def test_too_many_credentials_are_an_error_not_a_silent_drop() -> None:
    merged = merge(
        [_secret({f"registry{number}.example": {"auth": _auth("user:" + "x" * 100)} for number in range(100)})]
    )
    assert merged.too_large
    with pytest.raises(UserDataTooLarge, match=f"100 registries, allowed are {LIMIT}"):
        require_fit(merged)
    require_fit(merged, limit=100_000)


def test_credentials_are_in_no_repr() -> None:
    secret = _secret({"quay.io": {"username": "u", "password": "hunter2"}})
    assert "hunter2" not in repr(secret)
    assert _auth("u:hunter2") not in repr(merge([secret]))
