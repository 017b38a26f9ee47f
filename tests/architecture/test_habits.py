"""Imports, state, environment, names and docstrings: what the house does not do, found in the syntax tree."""

import ast
from collections.abc import Iterator

from tests.architecture.conftest import FunctionNode, Source, nothing

# path -> {imported module: why it may be imported inside a function}
LATE_IMPORTS: dict[str, dict[str, str]] = {}

# Optional and heavy: a driver that is not used costs nothing (house rules).
HEAVY = {"boto3", "botocore", "azure", "google", "ibm_vpc", "ibm_cloud_sdk_core", "libvirt", "kubernetes", "lightkube"}

MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
MUTABLE_CALLS = {
    "list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter", "ChainMap", "count", "iter",
    "array", "Lock", "RLock", "Event", "Condition", "Semaphore", "Queue", "SimpleQueue", "SimpleNamespace",
    "WeakValueDictionary", "WeakKeyDictionary", "WeakSet",
}  # fmt: skip
READ_ONLY_TYPES = {"Mapping", "Sequence", "Collection", "Iterable", "Container", "Set", "AbstractSet"}
LAYER_NAMES = {"utils", "util", "common", "manager", "helper", "helpers", "base", "misc"}


def _imports_in(function: FunctionNode) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, node.module or "."


def test_no_import_inside_a_function(production: list[Source]) -> None:
    late = {
        f"{source.at(node)} {name}"
        for source in production
        for function in source.functions()
        for node, name in _imports_in(function.node)
        if name.split(".")[0] not in HEAVY and name not in LATE_IMPORTS.get(source.path, {})
    }
    nothing(late)


def test_every_late_import_that_is_allowed_is_still_there(production: list[Source]) -> None:
    texts = {source.path: source.text for source in production}
    stale = [f"{path} {name}" for path, names in LATE_IMPORTS.items() for name in names if name not in texts[path]]
    nothing(stale)


def test_no_global_statement(production: list[Source]) -> None:
    found = [s.at(node) for s in production for node in ast.walk(s.tree) if isinstance(node, ast.Global)]
    nothing(found)


def _shared_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """What runs once at import: the bodies of the module, of its `if` and `try`, and of its classes."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.stmt) and not isinstance(node, FunctionNode):
                yield node
                waiting.append(node)


def _is_read_only(annotation: ast.expr | None) -> bool:
    """Whether mypy refuses to change what is so annotated: the outermost type but for Final and ClassVar."""
    while isinstance(annotation, ast.Subscript) and _last_name(annotation.value) in {"Final", "ClassVar"}:
        annotation = annotation.slice
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return annotation is not None and _last_name(annotation) in READ_ONLY_TYPES


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _makes_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return _last_name(value.func) in MUTABLE_CALLS
    return isinstance(value, MUTABLE_DISPLAYS)


def _shared_state(source: Source) -> Iterator[str]:
    for node in _shared_statements(source.tree):
        if isinstance(node, ast.AugAssign):
            yield f"{source.at(node)} changes a module-level value"
        elif isinstance(node, ast.Assign) and _makes_mutable(node.value):
            names = [_last_name(target) for target in node.targets]
            if not set(names) <= {"__all__", "__slots__"}:
                yield f"{source.at(node)} {', '.join(names)}"
        elif isinstance(node, ast.AnnAssign) and _makes_mutable(node.value) and not _is_read_only(node.annotation):
            yield f"{source.at(node)} {_last_name(node.target)}"


def test_no_mutable_state_at_module_level(production: list[Source]) -> None:
    """A table is fine when its annotation is read-only (`Mapping`, `Sequence`): mypy then refuses to change it."""
    nothing([line for source in production for line in _shared_state(source)])


def _reads_environment(node: ast.AST) -> bool:
    forbidden = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    if isinstance(node, ast.Attribute):
        return node.attr in forbidden and _last_name(node.value) == "os"
    return isinstance(node, ast.ImportFrom) and node.module == "os" and any(a.name in forbidden for a in node.names)


def test_only_cli_reads_the_environment(production: list[Source]) -> None:
    found = [
        source.at(node)
        for source in production
        if not source.path.endswith("/cli.py")
        for node in ast.walk(source.tree)
        if _reads_environment(node)
    ]
    nothing(found)


def test_every_module_says_what_may_live_there(everything: list[Source]) -> None:
    """A docstring whose first line is a sentence of its own, not a word."""
    broken = []
    for source in everything:
        first = (ast.get_docstring(source.tree) or "").split("\n")[0]
        if len(first.split()) < 4:
            broken.append(f"{source.path}: {first!r}")
    nothing(broken)


def test_the_roots_import_nothing(production: list[Source]) -> None:
    """`import caa.datapath` in a pod VM runs these files first."""
    roots = {"caa/__init__.py", "podvm/__init__.py", "providers/__init__.py"}
    found = [
        source.at(node)
        for source in production
        if source.path in roots
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    nothing(found)


def test_nothing_is_named_by_its_layer(production: list[Source]) -> None:
    parts = {(source.path, part) for source in production for part in source.path.removesuffix(".py").split("/")}
    nothing(path for path, part in parts if part in LAYER_NAMES)
