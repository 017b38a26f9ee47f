"""Numbered lines, checked: each exactly once and in order. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

_SHOWN = 5


@dataclass
class Lines:
    """Reads `WORD 1`, `WORD 2`, ... in chunks; at its end the writer says `CLOSING` and how many it wrote."""

    word: bytes
    closing: bytes
    count: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    total: int | None = None
    examples: list[str] = field(default_factory=list)
    _rest: bytes = b""

    def feed(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._take(line)

    @property
    def faults(self) -> int:
        return self.lost + self.doubled + self.changed

    def problems(self) -> Iterable[str]:
        """What is wrong, the examples first. Ask after the writer's end: a missing total is a fault."""
        yield from self.examples
        if self.total is None:
            yield f"{self._name}: the writer's last line never came; {self.count} lines did"
        elif self.total != self.count:
            yield f"{self._name}: {self.total} lines were written, {self.count} came"
        if self._rest:
            yield f"{self._name}: ends in the middle of a line: {self._rest[:40]!r}"

    @property
    def _name(self) -> str:
        return self.word.decode()

    def _take(self, line: bytes) -> None:
        word, _, digits = line.partition(b" ")
        if word == self.closing and digits.isdigit():
            self.total = int(digits)
        elif word == self.word and digits.isdigit():
            self._number(int(digits), line)
        else:
            self.changed += 1
            self._note(line)

    def _number(self, number: int, line: bytes) -> None:
        if number > self.count + 1:
            self.lost += number - self.count - 1
            self._note(line)
        elif number <= self.count:
            self.doubled += 1
            self._note(line)
            return
        self.count = number

    def _note(self, line: bytes) -> None:
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{self._name}: {line[:60]!r} came where {self.count + 1} was due")
