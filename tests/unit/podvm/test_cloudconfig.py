"""The strict reader takes the reference's documents and ours, byte for byte, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.userdata import cloudconfig as ours
from caa.userdata.cloudconfig import File
from podvm import cloudconfig

REFERENCE = b"""#cloud-config

write_files:
  - path: /run/peerpod/apf.json
    content: |
      {
          "pod-name": "web"
      }
  - path: /run/peerpod/auth.json
    content: |
      {"auths": {}}
  - path: /run/peerpod/scratch-space.marker
"""


def test_the_reference_documents_block_scalars() -> None:
    assert cloudconfig.parse(REFERENCE) == [
        File("/run/peerpod/apf.json", '{\n    "pod-name": "web"\n}\n'),
        File("/run/peerpod/auth.json", '{"auths": {}}\n'),
        File("/run/peerpod/scratch-space.marker", ""),
    ]


@given(contents=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_our_documents_byte_for_byte(contents: list[str]) -> None:
    files = [File(f"/run/peerpod/{number}", content) for number, content in enumerate(contents)]
    assert cloudconfig.parse(ours.render(files)) == files


@pytest.mark.parametrize(
    "document", [b"", b"#cloud-config\n", b"#cloud-config\nwrite_files:\n", b"write_files: []", b"~"]
)
def test_no_files(document: bytes) -> None:
    assert cloudconfig.parse(document) == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"#cloud-config\nruncmd: [reboot]\n", "line 2: unknown key 'runcmd', allowed is write_files"),
        (
            b"write_files:\n  - path: /a\n    permissions: '0777'\n",
            "line 3: unknown key 'permissions' in write_files, allowed are path and content",
        ),
        (b"write_files:\n  - path: /a\n    content: [1]\n", "line 3: content in write_files has to be text"),
        (b"write_files:\n  - content: x\n", "line 2: an item of write_files needs an absolute path"),
        (b"write_files:\n  - path: relative\n", "line 2: an item of write_files needs an absolute path"),
        (b"write_files:\n  - path: /a\n    path: /b\n", "line 3: a key of an item of write_files is not text or comes"),
        (b"write_files:\n  - path: /a\n  - path: /a\n", "'/a' comes twice"),
        (b"write_files: {}\n", "line 1: write_files has to be a list"),
        (b"write_files:\n- x\n", "line 2: an item of write_files has to be a mapping"),
        (b"- a\n", "line 1: the document has to be a mapping"),
        (b"#!/bin/sh\nrm -rf /\n", "the document has to be a mapping"),
        (b"a: &x 1\n", "line 1: anchors and aliases are not allowed"),
        (b"write_files: &x []\nb: *x\n", "anchors and aliases are not allowed"),
        (b"a: b: c\n", "not YAML: line 1"),
        (b"---\na: 1\n---\nb: 2\n", "not YAML: line 3"),
        (b"\x00", "does not allow"),
        (b"\xff\xfe\xff", "not UTF-8"),
        (b'write_files: [{path: /a, content: "\\ud800"}]', "user data"),
        (b"[" * 100_000, "nested deeper"),
        (b"- " * 50_000, "nested deeper"),
        (b"write_files:\n" + b"- path: /a\n" * 1001, "line 2: write_files has 1001 items, allowed are 1000"),
    ],
)
def test_everything_else_is_refused_with_line_and_key(document: bytes, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        cloudconfig.parse(document)
    assert text in str(caught.value)


def test_an_error_never_shows_a_content() -> None:
    with pytest.raises(InvalidInput) as caught:
        cloudconfig.parse(b"write_files:\n  - path: /a\n    content: sesame\n    mode: open\n")
    assert "sesame" not in str(caught.value)


@given(document=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(document: bytes) -> None:
    try:
        files = cloudconfig.parse(document)
    except InvalidInput:
        return
    assert all(file.path.startswith("/") for file in files)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (["write_files:", '  - path: "/run/peerpod/apf.json"', '    content: "never closed'], "line 3, key 'content'"),
        (["write_files:", "  - path: /a", "\tcontent: x"], "line 3, key 'path'"),
        (["write_files: [", "  {path: /a"], "line 3, key 'write_files'"),
        (["a: b: c"], "line 1: "),
    ],
)
def test_what_is_not_yaml_says_line_and_key(lines: list[str], place: str) -> None:
    with pytest.raises(InvalidInput, match="user data is not YAML") as caught:
        cloudconfig.parse("\n".join(lines).encode())
    assert place in str(caught.value)
