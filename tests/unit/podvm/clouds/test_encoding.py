"""Plain or base64, and nothing else."""

import base64

import pytest

from caa.errors import InvalidInput
from podvm.clouds.encoding import plain

DOCUMENT = b"#cloud-config\nwrite_files: []\n"


@pytest.mark.parametrize(
    "body", [DOCUMENT, base64.b64encode(DOCUMENT), base64.encodebytes(DOCUMENT), b"\n" + base64.b64encode(DOCUMENT)]
)
def test_both_forms_are_taken(body: bytes) -> None:
    assert plain(body, "x") == DOCUMENT


@pytest.mark.parametrize("body", [b"", b" \n", b"\xff\xfe", b"{secret}", b"YWJ"])
def test_anything_else_is_refused_and_not_shown(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="azure: the user data") as caught:
        plain(body, "azure")
    assert "secret" not in str(caught.value)
