"""The end of a console in an error message."""

import pytest

from caa.provider.console import ending, tail

FIRMWARE = (
    b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: failed to load Boot0001\r\n\x1b[07;01HPress \x1b[1m\x1b[37mESC\x1b[0m\x1b[37m"
    b" in 5 seconds\x1b[07;01HPress ESC in 4 seconds\x1bMShell> "
)


def test_it_is_fit_for_an_error() -> None:
    said = tail(b"old\n" * 5000 + b"\x1b[31mKernel panic\x1b[0m - not syncing\r\n\xff\0\n" + b"last words\n")
    assert said.endswith("old\nKernel panic - not syncing\n\N{REPLACEMENT CHARACTER}\nlast words")
    assert len(said.splitlines()) == 24


def test_it_is_short() -> None:
    assert tail(b"x" * 100_000) == "x" * 2000


def test_what_firmware_draws_is_read_as_lines() -> None:
    assert tail(FIRMWARE).splitlines() == [
        "BdsDxe: failed to load Boot0001",
        "Press ESC in 5 seconds",
        "Press ESC in 4 seconds",
        "Shell>",
    ]


@pytest.mark.parametrize(
    ("console", "words"), [(b"", "; its console is empty"), (b"a\n", "; its console ends with:\na")]
)
def test_the_rest_of_a_sentence(console: bytes, words: str) -> None:
    assert ending(console) == words
