"""Medians, ratios and goals as a Markdown table."""

import os
import platform
import ssl
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.bench.loads import Sample
from tests.bench.memory import ForwarderCost, PodCost

WAYS = ("direct", "ours", "plain", "c", "go")
OTHERS = ("plain", "c", "go")
UNKNOWN = "-"
Cost = TypeVar("Cost")


@dataclass(frozen=True)
class Goal:
    """A bound on our own figure or on its ratio to another way; `at_least` where more is better."""

    bound: float
    at_least: bool = False

    def met(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound

    def shown(self, text: str, figure: float) -> str:
        """The figure in its cell, with the bound and whether it is kept."""
        return f"{text} ({self}: {'pass' if self.met(figure) else '**miss**'})"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One metric: how it is called, its values by way, its ratios by the other way, and the goals of either."""

    title: str
    values: Mapping[str, float]
    ratios: Mapping[str, float]
    goals: Mapping[str, Goal]

    def met(self) -> list[bool]:
        """Whether each goal is met."""
        return [goal.met(self.values[way] if way == "ours" else self.ratios[way]) for way, goal in self.goals.items()]


@dataclass(frozen=True)
class Metric:
    """A figure of a load that the table shows."""

    load: str
    figure: str
    title: str
    against_c: Goal | None = None
    against_go: Goal | None = None
    against_plain: Goal | None = None


ONE, MANY, SMALL, LARGE = (
    "check, 1 in flight", "check, 32 in flight", "read 32 KiB, 1 in flight", "read 1 MiB, 1 in flight",
)  # fmt: skip
CPU_C, CPU_GO = Goal(1.5), Goal(0.5)
SESSION, SESSION_LARGE = Goal(1.1), Goal(1.15)
METRICS: Sequence[Metric] = (
    Metric(ONE, "p50_us", f"{ONE}: p50, µs", Goal(1.35), Goal(0.6), SESSION),
    Metric(ONE, "p99_us", f"{ONE}: p99, µs"),
    Metric(ONE, "calls_s", f"{ONE}: calls/s"),
    Metric(ONE, "cpu_us", f"{ONE}: CPU of both hops a call, µs", CPU_C, CPU_GO, SESSION),
    Metric(MANY, "p50_us", f"{MANY}: p50, µs", against_plain=SESSION),
    Metric(MANY, "p99_us", f"{MANY}: p99, µs"),
    Metric(MANY, "calls_s", f"{MANY}: calls/s", Goal(0.8, at_least=True), Goal(3, at_least=True)),
    Metric(MANY, "cpu_us", f"{MANY}: CPU a call, µs", CPU_C, CPU_GO, SESSION),
    Metric(SMALL, "p50_us", f"{SMALL}: p50, µs", against_plain=SESSION),
    Metric(SMALL, "mb_s", f"{SMALL}: MB/s"),
    Metric(SMALL, "cpu_us", f"{SMALL}: CPU a call, µs", CPU_C, CPU_GO, SESSION),
    Metric(LARGE, "p50_us", f"{LARGE}: p50, µs", against_plain=SESSION_LARGE),
    Metric(LARGE, "mb_s", f"{LARGE}: MB/s", Goal(0.85, at_least=True), Goal(2, at_least=True)),
    Metric(LARGE, "cpu_us", f"{LARGE}: CPU a call, µs", CPU_C, CPU_GO, SESSION_LARGE),
)


def load_rows(samples: Sequence[Sample]) -> Iterator[Row]:
    """One row a metric: medians over the rounds, ratios as medians of the rounds' ratios."""
    for metric in METRICS:
        series = {way: _series(samples, way, metric) for way in WAYS}
        goals = {"plain": metric.against_plain, "c": metric.against_c, "go": metric.against_go}
        yield Row(
            metric.title,
            {way: statistics.median(values) for way, values in series.items() if any(values)},
            {other: statistics.median(_ratios(series["ours"], series[other])) for other in goals},
            {other: goal for other, goal in goals.items() if goal},
        )


def _series(samples: Sequence[Sample], way: str, metric: Metric) -> list[float]:
    chosen = [sample for sample in samples if sample.way == way and sample.load == metric.load]
    return [sample.figures[metric.figure] for sample in sorted(chosen, key=lambda sample: sample.round)]


def _ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, others, strict=True)]


def pod_rows(costs: Mapping[str, PodCost]) -> Iterator[Row]:
    """KiB per pod of the first hop."""
    goal = {"go": Goal(0.6)}
    yield _plain("first hop: KiB per idle pod", costs, lambda cost: cost.idle, goal)
    yield _plain("first hop: KiB per attached pod", costs, lambda cost: cost.attached, {**goal, "ours": Goal(27)})


def forwarder_rows(costs: Mapping[str, ForwarderCost]) -> Iterator[Row]:
    """The second hop's memory and start."""
    yield _plain("forwarder: RSS listening, KiB", costs, lambda cost: cost.listening, {})
    yield _plain("forwarder: RSS after traffic, KiB", costs, lambda cost: cost.after_traffic, {})
    yield _plain("forwarder: exec to first accept, ms", costs, lambda cost: cost.start_ms, {})


def _plain(title: str, costs: Mapping[str, Cost], figure: Callable[[Cost], float], goals: Mapping[str, Goal]) -> Row:
    values = {way: figure(cost) for way, cost in costs.items()}
    return Row(title, values, {other: values["ours"] / values[other] for other in OTHERS}, goals)


def table(rows: Sequence[Row], *, rounds: int, seconds: float) -> str:
    """Markdown: where it was measured, the table, how many goals were met."""
    met = [one for row in rows for one in row.met()]
    lines = [
        f"{rounds} rounds of {seconds:g} s a load. {machine()}",
        "",
        "| metric | direct | ours (session on) | plain | c | go | ours / plain | ours / c | ours / go |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        f"{sum(met)} of {len(met)} goals met.",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    cells = [_value(row, way) if way in row.values else UNKNOWN for way in WAYS]
    return f"| {' | '.join([row.title, *cells, *(_ratio(row, other) for other in OTHERS)])} |"


def _value(row: Row, way: str) -> str:
    goal = row.goals.get(way) if way == "ours" else None
    text = _number(row.values[way])
    return text if goal is None else goal.shown(text, row.values[way])


def _ratio(row: Row, other: str) -> str:
    goal = row.goals.get(other)
    text = f"{row.ratios[other]:.2f}"
    return text if goal is None else goal.shown(text, row.ratios[other])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> str:
    """One sentence on where the figures are from."""
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    python = f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION.rsplit(' ', 3)[0]}"
    return f"{os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}, {python}, {go}."


def put(page: Path, name: str, table: str) -> None:
    """Replace what stands between the marks `name` of a page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}")
