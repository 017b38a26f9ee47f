"""The end of a pod VM's serial console, made fit for an error message. Pure."""

import re

# What firmware and shells tell a terminal (ECMA-48): colours vanish, anything else moves the cursor.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
_BYTES = 8192  # firmware repaints its screen: a line of text may take many times its size
_CHARACTERS = 2000


def tail(console: bytes, lines: int = 24) -> str:
    """Its last `lines` lines that hold anything, printable, 2000 characters at most; "" when there is nothing."""
    text = _CONTROL.sub("\n", _COLOUR.sub("", console[-_BYTES:].decode("utf-8", "replace")))
    kept = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
    return "\n".join([line for line in kept if line][-lines:])[-_CHARACTERS:]


def ending(console: bytes) -> str:
    """The same as the rest of a sentence about a pod VM that did not come up."""
    said = tail(console)
    return f"; its console ends with:\n{said}" if said else "; its console is empty"
