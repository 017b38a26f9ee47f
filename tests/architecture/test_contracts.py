"""The import contracts of `pyproject.toml`, and cycles between modules."""

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

from tests.architecture.conftest import nothing

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_are_kept() -> None:
    code = "from importlinter.cli import lint_imports_command as run; run()"
    result = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("caa", "providers", "podvm", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    circle: list[str] = []
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle = error.args[1]
    nothing([" -> ".join(circle)] if circle else [])
