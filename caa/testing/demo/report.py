"""What the demo prints: a result object, and the same as text with a waterfall of the start. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BAR = 40  # characters of the waterfall's time axis


@dataclass
class Span:
    """One act of a start: where it began and how long it took, in milliseconds from CreateVM."""

    name: str
    start_ms: float
    length_ms: float


@dataclass
class Result:
    """The object that `caa demo --json` prints."""

    ok: bool = False
    error: str = ""
    provider: str = ""
    pods: int = 1
    timings_ms: dict[str, float] = field(default_factory=dict)
    exec: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    survived: dict[str, Any] = field(default_factory=dict)
    left_over: dict[str, list[str]] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)  # the end of every log, when something failed

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def waterfall(spans: Sequence[Span]) -> list[str]:
    """One line a span: its name, when it began, how long it took, and a bar on a common axis."""
    if not spans:
        return []
    total = max(span.start_ms + span.length_ms for span in spans) or 1.0
    width = max(len(span.name) for span in spans)
    return [_line(span, total=total, width=width) for span in spans]


def _line(span: Span, *, total: float, width: int) -> str:
    lead = int(span.start_ms / total * BAR)
    bar = "█" * max(1, round(span.length_ms / total * BAR))
    return f"  {span.name:<{width}} {span.start_ms:7.0f} {span.length_ms:7.0f} ms  {' ' * lead}{bar}"


def verdict(result: Result) -> list[str]:
    """The last lines: what was proven, what is left over, and `demo: passed` or `demo: FAILED` with the reason."""
    if result.error == "interrupted":
        return ["demo: interrupted, all removed"]
    lines = [f"  left over: {kind}: {line}" for kind, found in result.left_over.items() for line in found]
    if not result.left_over and not result.error:
        cloud = "" if result.provider == "local" else "; nothing is alive in the cloud"
        lines.append(
            f"  nothing left: no process, namespace, link, address, socket, nft rule, mount, cgroup or file{cloud}"
        )
    lines.append("demo: passed" if result.ok else f"demo: FAILED: {result.error or 'something is left over'}")
    return lines


def facts(title: str, values: Mapping[str, Any]) -> list[str]:
    """A heading and one line a value."""
    return [title, *(f"  {name}: {value}" for name, value in values.items())]
