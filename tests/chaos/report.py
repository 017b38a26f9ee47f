"""What a run found: one `Outcome` a row, as JSON and as Markdown. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 40


@dataclass
class Outcome:
    """One row: what was done, what was counted, what must not have happened and did (`problems`)."""

    row: str
    done: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    pods_lost: int = 0
    lines_lost: int = 0
    lines_doubled: int = 0
    lines_changed: int = 0
    calls_wrong: int = 0
    left_over: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        lost = self.pods_lost + self.lines_lost + self.lines_doubled + self.lines_changed + self.calls_wrong
        return not lost and not self.problems and not self.left_over


@dataclass
class Report:
    """All rows of one run, and those that this tree cannot run yet with the reason."""

    seed: int
    size: str
    outcomes: list[Outcome] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.outcomes) and all(one.ok for one in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        rows = [{**asdict(one), "ok": one.ok} for one in self.outcomes]
        return {
            "seed": self.seed, "size": self.size, "ok": self.ok, "rows": rows, "unavailable": dict(self.unavailable),
        }  # fmt: skip

    def as_markdown(self) -> str:
        head = [f"# Chaos run, {self.size}, seed {self.seed}: {'passed' if self.ok else 'FAILED'}", ""]
        return "\n".join([*head, *_table(self.outcomes), "", *self._details()]) + "\n"

    def _details(self) -> Iterable[str]:
        for one in self.outcomes:
            yield from (f"## {one.row}", "")
            yield from (f"- {name}: {value}" for name, value in {**one.done, **one.figures}.items())
            yield from (f"- LEFT OVER {kind}: {line}" for kind, lines in one.left_over.items() for line in lines)
            yield from (f"- PROBLEM: {line}" for line in one.problems[:_SHOWN])
            yield ""
        yield from (f"Not run: {row}: {why}." for row, why in self.unavailable.items())


def _table(outcomes: Sequence[Outcome]) -> Iterable[str]:
    yield "| row | pods lost | lines lost | doubled | changed | calls answered wrongly | left over | seconds | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in outcomes:
        counts = (one.pods_lost, one.lines_lost, one.lines_doubled, one.lines_changed, one.calls_wrong)
        left = sum(len(lines) for lines in one.left_over.values())
        cells = [one.row, *map(str, counts), str(left), f"{one.seconds:.0f}", "ok" if one.ok else "FAILED"]
        yield f"| {' | '.join(cells)} |"
