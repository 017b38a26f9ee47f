"""What is written is what a strict YAML reader gets, byte for byte."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.userdata.cloudconfig import File, quote, render

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_PATH = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40).map(
    lambda text: f"/{text}"
)


@given(st.dictionaries(_PATH, _TEXT, max_size=5))
@example({"/a": "\r\n"})
@example({"/a": " first line begins with a blank\n\n\n"})
@example({"/a": "no final newline"})
@example({"/a: b": "---\n...\n\ufeff\x85\u2028\x00\x7f\U0001f600'\"\\"})
@example({})
def test_any_files_come_back_byte_for_byte(read_strictly, files: dict[str, str]) -> None:
    document = render([File(path, content) for path, content in files.items()])
    assert document.isascii()
    assert read_strictly(document) == files


@given(_TEXT)
def test_a_quoted_scalar_is_a_string_whatever_it_looks_like(text: str) -> None:
    assert yaml.safe_load(quote(text)) == text


@pytest.mark.parametrize(
    "text", ["yes", "null", "1.5", "0x10", "2026-01-01", "~", "- a", "a: b", "%YAML", "&a *a", "#"]
)
def test_no_plain_scalar_rule_applies(text: str) -> None:
    assert yaml.safe_load(quote(text)) == text


def test_the_layout_is_the_reference_s_but_for_the_scalars() -> None:
    document = render([File("/run/peerpod/initdata", "H4sI"), File("/run/peerpod/scratch-space.marker")])
    assert document == (
        b"#cloud-config\nwrite_files:\n"
        b'  - path: "/run/peerpod/initdata"\n    content: "H4sI"\n'
        b'  - path: "/run/peerpod/scratch-space.marker"\n'
    )


@pytest.mark.parametrize("path", ["", "relative", "/a\0b"])
def test_paths_that_no_file_can_have(path: str) -> None:
    with pytest.raises(InvalidInput):
        render([File(path, "x")])


def test_a_path_comes_once() -> None:
    with pytest.raises(InvalidInput, match="comes once"):
        render([File("/a", "x"), File("/a", "y")])


def test_lone_surrogates_are_no_text() -> None:
    with pytest.raises(InvalidInput, match=r"U\+D800"):
        render([File("/a", "\ud800")])


def test_content_is_not_in_repr() -> None:
    assert "secret" not in repr(File("/a", "secret"))
