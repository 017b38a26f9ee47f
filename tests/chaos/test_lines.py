"""The judge of the streams sees what it is there for: a line lost, doubled, changed, out of order, cut off."""

import pytest

from tests.chaos.lines import Lines


def _read(text: bytes, size: int) -> Lines:
    lines = Lines(b"out", b"last")
    for offset in range(0, len(text), size):
        lines.feed(text[offset : offset + size])
    return lines


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_good_stream(size):
    lines = _read(b"out 1\nout 2\nout 3\nlast 3\n", size)
    assert (lines.count, lines.faults, list(lines.problems())) == (3, 0, [])


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (b"out 1\nout 4\nlast 4\n", (2, 0, 0)),
        (b"out 1\nout 2\nout 2\nlast 2\n", (0, 1, 0)),
        (b"out 2\nout 1\nlast 2\n", (1, 1, 0)),
        (b"out 1\nout x2\nlast 1\n", (0, 0, 1)),
        (b"out 1\nout 2\nou", (0, 0, 0)),
        (b"out 1\nlast 2\n", (0, 0, 0)),
        (b"", (0, 0, 0)),
    ],
)
def test_a_bad_stream_is_told(text, counts):
    lines = _read(text, 3)
    assert (lines.lost, lines.doubled, lines.changed) == counts
    assert list(lines.problems())
