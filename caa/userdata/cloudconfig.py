"""The cloud-config document: files in, YAML out. Written without a YAML library; pure.

The guest's decoder is strict: `write_files` entries may hold `path` and `content` and nothing else. Both are written as
double-quoted scalars, in which YAML 1.1 and 1.2 readers agree byte for byte (a block scalar changes final newlines,
carriage returns and leading blanks).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from caa.errors import InvalidInput

HEADER = "#cloud-config\n"
_NOT_PLAIN = re.compile(r"[^ !#-\[\]-~]")  # all but printable ASCII without `"` and `\`
_SHORT = MappingProxyType({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


@dataclass(frozen=True, slots=True)
class File:
    """A file for the guest: absolute path and text; `content` may hold secrets and is left out of `repr`."""

    path: str
    content: str = field(default="", repr=False)

    @property
    def size(self) -> int:
        """Bytes that this file takes in the document."""
        return len(_entry(self))


def render(files: Sequence[File]) -> bytes:
    """The document, ASCII only, ending in a newline. A file without content gets no `content` key, as in the reference.

    Raises `InvalidInput` for a path that is not absolute or comes twice, and for text that is not Unicode.
    """
    paths = [file.path for file in files]
    for path in paths:
        if not path.startswith("/") or "\0" in path or paths.count(path) > 1:
            raise InvalidInput(f"user data cannot write {path!r}: a path is absolute and comes once")
    body = "".join(_entry(file) for file in files)
    return (HEADER + (f"write_files:\n{body}" if body else "")).encode("ascii")


def quote(text: str) -> str:
    """A YAML double-quoted scalar on one line, ASCII only; raises `InvalidInput` for a lone surrogate."""
    return '"' + _NOT_PLAIN.sub(_escape, text) + '"'


def _entry(file: File) -> str:
    content = f"    content: {quote(file.content)}\n" if file.content else ""
    return f"  - path: {quote(file.path)}\n{content}"


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        raise InvalidInput(f"user data holds a lone surrogate (U+{code:04X}), which is not Unicode text")
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
