"""The parsed sources that the house rules are checked against."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("caa", "providers", "podvm")
GENERATED = "caa/wire/proto/"  # only its .pyi stubs are generated; the loader beside them is ours

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """One `def` of the sources; `lines` counts from `def` to the end, decorators and docstring left out."""

    where: str
    node: FunctionNode = field(repr=False)
    in_class: bool
    lines: int
    is_stub: bool


@dataclass(frozen=True)
class Source:
    """One module: its path below the checkout, text and tree."""

    path: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    def at(self, node: ast.stmt | ast.expr) -> str:
        """`path:line` of a node, as an editor opens it."""
        return f"{self.path}:{node.lineno}"

    def functions(self) -> Iterator[Function]:
        """Every function, nested ones and methods too."""
        for parent in ast.walk(self.tree):
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, FunctionNode):
                    yield self._function(node, in_class=isinstance(parent, ast.ClassDef))

    def _function(self, node: FunctionNode, *, in_class: bool) -> Function:
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        documented = node.body[0].end_lineno - node.body[0].lineno + 1 if len(body) < len(node.body) else 0
        return Function(
            where=f"{self.at(node)} {node.name}",
            node=node,
            in_class=in_class,
            lines=node.end_lineno - node.lineno + 1 - documented,
            is_stub=all(_is_placeholder(statement) for statement in body),
        )


def _is_placeholder(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    )


def nothing(found: Iterable[str]) -> None:
    """Fail with every line of `found`; an assertion would cut the list short."""
    lines = sorted(found)
    if lines:
        pytest.fail(f"{len(lines)} found:\n" + "\n".join(lines), pytrace=False)


def _read(path: Path) -> Source:
    text = path.read_text()
    return Source(str(path.relative_to(ROOT)), text, ast.parse(text))


def _below(*folders: str) -> list[Source]:
    return [_read(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def production() -> list[Source]:
    """Every module of the three packages."""
    return _below(*PACKAGES)


@pytest.fixture(scope="session")
def everything(production: list[Source]) -> list[Source]:
    """The three packages and the tests."""
    return [*production, *_below("tests")]
