"""Clocks and sleeps are injected: no unit test sleeps; what sleeps in production is listed with its reason."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.conftest import ROOT, Source, nothing

# path -> why it sleeps by itself. Everything else is given a clock.
SLEEPERS: dict[str, str] = {
    "caa/node/system.py": "the clock that is injected",
    "caa/node/links.py": "between two dials of the relay, within the call's deadline",
    "caa/node/stops.py": "between two looks into the folder of stops, an endless task",
    "caa/provider/clock.py": "the clock that is injected into drivers",
    "podvm/clock.py": "the default of a clock that is injected",
    "podvm/volumes.py": "polls the umount that it started: `waitpid` has no deadline",
    "podvm/forwarder.py": "before the loop runs: the agent's socket may not be there yet",
    "providers/local/cgroups.py": "cgroup v1 tells nobody when the last process is gone",
}
# Stand-ins and the demo are real time.
REAL_TIME = "caa/testing/"


def _is_sleep(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "sleep" and isinstance(node.value, ast.Name) and node.value.id in {"time", "asyncio"}
    return False


def _yields_only(node: ast.AST) -> bool:
    """`asyncio.sleep(0)` lets other tasks run and takes no time."""
    if not (isinstance(node, ast.Call) and _is_sleep(node.func) and len(node.args) == 1):
        return False
    return isinstance(node.args[0], ast.Constant) and node.args[0].value == 0


def _sleeps(source: Source) -> Iterator[str]:
    harmless = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call) and _yields_only(node)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}:
            if any(alias.name == "sleep" for alias in node.names):
                yield source.at(node)
        elif isinstance(node, ast.Attribute) and _is_sleep(node) and id(node) not in harmless:
            yield source.at(node)


def test_no_unit_test_sleeps(everything: list[Source]) -> None:
    units = [one for one in everything if one.path.startswith("tests/unit/")]
    assert units
    nothing(line for source in units for line in _sleeps(source))


def test_production_sleeps_where_a_reason_is_given(production: list[Source]) -> None:
    others = [one for one in production if one.path not in SLEEPERS and not one.path.startswith(REAL_TIME)]
    nothing(line for source in others for line in _sleeps(source))


def test_whoever_may_sleep_still_does(production: list[Source]) -> None:
    asleep = {source.path for source in production if any(_sleeps(source))}
    nothing(SLEEPERS.keys() - asleep)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time\ntime.sleep(1)", 1),
        ("import asyncio\nwait = asyncio.sleep(0)", 0),
        ("import asyncio\nwait = asyncio.sleep", 1),
        ("from time import monotonic, sleep", 1),
        ("clock.sleep(1)", 0),
    ],
)
def test_sleeps_are_seen(text: str, found: int) -> None:
    assert len(list(_sleeps(Source(str(ROOT / "x.py"), text, ast.parse(text))))) == found
