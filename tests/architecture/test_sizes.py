"""How long functions and files may be, how many parameters a function takes; prints the figures."""

import ast
import statistics

import pytest

from tests.architecture.conftest import Function, Source, nothing

MEDIAN, NINETIETH, LONGEST = 8, 25, 50
FILE_LINES = 400
PARAMETERS, POSITIONAL = 5, 2

# Python, not we, decides what these are called with: the end of a `with`, and operators that take three (`pow`).
PYTHON_DECIDES = {"__exit__", "__aexit__", "__setitem__", "__set__", "__pow__"}

# (path, function) -> why it may take more than two by position.
WIDE: dict[tuple[str, str], str] = {
    ("caa/logs.py", "__call__"): "structlog calls a processor with three values",
}


@pytest.fixture(scope="module")
def functions(production: list[Source]) -> list[Function]:
    return [function for source in production for function in source.functions()]


@pytest.fixture(scope="module")
def lengths(functions: list[Function]) -> list[int]:
    """Sorted; what has no body (protocols, overloads) is not a short function and does not count."""
    return sorted(function.lines for function in functions if not function.is_stub)


def _ninetieth(lengths: list[int]) -> int:
    return lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)]


def test_print_the_figures(production: list[Source], lengths: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(source.lines for source in production)
    figures = {
        "modules": len(files),
        "lines": sum(files),
        "longest file": files[-1],
        "functions": len(lengths),
        "function median": statistics.median(lengths),
        "function p90": _ninetieth(lengths),
        "longest function": lengths[-1],
    }
    with capsys.disabled():
        print("\nfigures: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    assert all(figures.values())


def test_functions_are_short(lengths: list[int]) -> None:
    assert statistics.median(lengths) <= MEDIAN
    assert _ninetieth(lengths) <= NINETIETH


def test_no_function_is_long(functions: list[Function]) -> None:
    nothing([f"{one.where}: {one.lines} lines" for one in functions if one.lines > LONGEST])


def test_no_file_is_long(everything: list[Source]) -> None:
    """Tests as well."""
    nothing([f"{source.path}: {source.lines} lines" for source in everything if source.lines > FILE_LINES])


def _own_parameters(function: Function) -> tuple[list[str], list[str]]:
    """Positional and keyword-only names, `self` or `cls` left out."""
    given = function.node.args
    positional = [one.arg for one in [*given.posonlyargs, *given.args]]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.node.decorator_list)
    if function.in_class and not static:
        positional = positional[1:]
    return positional, [one.arg for one in given.kwonlyargs]


def test_few_parameters(functions: list[Function]) -> None:
    wide = []
    for function in functions:
        positional, keyword = _own_parameters(function)
        if len(positional) + len(keyword) > PARAMETERS:
            wide.append(f"{function.where}: {len(positional) + len(keyword)} parameters")
    nothing(wide)


def _is_wide(function: Function) -> bool:
    return len(_own_parameters(function)[0]) > POSITIONAL and function.node.name not in PYTHON_DECIDES


def test_beyond_two_parameters_all_are_keyword_only(production: list[Source]) -> None:
    broken = [
        f"{one.where}: {', '.join(_own_parameters(one)[0])}"
        for source in production
        for one in source.functions()
        if _is_wide(one) and (source.path, one.node.name) not in WIDE
    ]
    nothing(broken)


def test_whatever_may_be_wide_still_is(production: list[Source]) -> None:
    found = {(source.path, one.node.name) for source in production for one in source.functions() if _is_wide(one)}
    nothing(" ".join(one) for one in WIDE.keys() - found)
