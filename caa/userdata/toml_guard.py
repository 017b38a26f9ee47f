"""A look over hostile TOML before `tomllib` sees it. Pure.

`tomllib` takes memory and time that grow with the square of a dotted key's length: 400 KB of `a.a.a` kill the process.
Strings and comments are harmless, so only what stands outside them is bounded.
"""

import re
from types import MappingProxyType

MAX_STRUCTURE = 16 * 1024  # characters outside strings and comments; real initdata has some hundred
MAX_DOTS = 16  # outside strings, in one line: the parts of a dotted key

_OPENERS = re.compile(r"'''|\"\"\"|['\"#]")
# Possessive: an alternation that may go back costs 120 bytes of memory a character.
_CLOSERS = MappingProxyType(
    {
        "'''": re.compile(r".*?'{3,5}", re.DOTALL),
        '"""': re.compile(r'(?:[^"\\]++|\\.|"(?!""))*+"{3,5}', re.DOTALL),
        "'": re.compile(r"[^'\n]*'"),
        '"': re.compile(r'(?:[^"\\\n]++|\\[^\n])*+"'),
        "#": re.compile(r"[^\n]*"),
    }
)


def refuse_hostile(text: str) -> None:
    """Raise `ValueError` with a phrase for the user when the text is no TOML that is safe to parse.

    Takes time that grows with the length of the text. A string that is never closed is refused here; every other
    mistake is left to the parser.
    """
    structure = _outside_strings(text)
    if len(structure) > MAX_STRUCTURE:
        raise ValueError(f"more than {MAX_STRUCTURE} characters stand outside strings and comments")
    if any(line.count(".") > MAX_DOTS for line in structure.splitlines()):
        raise ValueError(f"a key has more than {MAX_DOTS} parts")


def _outside_strings(text: str) -> str:
    """The text with each string replaced by one `s`, and without comments."""
    parts: list[str] = []
    position = 0
    while opener := _OPENERS.search(text, position):
        closer = _CLOSERS[opener.group()].match(text, opener.end())
        if closer is None:
            raise ValueError(f"the string that opens in line {text.count(chr(10), 0, opener.start()) + 1} has no end")
        parts.append(text[position : opener.start()] + ("" if opener.group() == "#" else "s"))
        position = closer.end()
    return "".join((*parts, text[position:]))
