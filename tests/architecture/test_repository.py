"""The files around the sources: the lock, the licence, the suites, and hosts that no file may name."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

from tests.architecture.conftest import nothing

ROOT = Path(__file__).resolve().parents[2]

# Where packages come from is the site's own configuration. Written in halves, so that this file names none either.
REGISTRIES = tuple(
    f"{name}.{top}"
    for name, top in (
        ("pypi", "org"), ("files.pythonhosted", "org"), ("proxy.golang", "org"), ("sum.golang", "org"),
        ("registry.npmjs", "org"), ("static.crates", "io"), ("repo1.maven", "org"), ("repo.maven.apache", "org"),
        ("deb.debian", "org"), ("archive.ubuntu", "com"), ("security.debian", "org"),
    )
)  # fmt: skip


def _committed() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    return [path for name in names if name and (path := ROOT / name.decode()).is_file()]


def test_the_locks_pin_hashes_and_name_no_index() -> None:
    for name in ("requirements.lock", ".ci/go.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert not re.search(r"^\s*(-i|--index|--extra-index|--find-links)", text, re.MULTILINE)
        pinned = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+.*\\$", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) > 0
        assert text.count("--hash=sha256:") >= len(pinned)


def test_the_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line for lines in project["optional-dependencies"].values() for line in lines] + project["dependencies"]
    locked = {
        name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M)
    }
    wanted = {re.split(r"[\[<>=;! ]", line)[0].lower() for line in named} - {project["name"]}
    nothing(wanted - locked)


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _committed()
        for host in REGISTRIES
        if host.encode() in path.read_bytes()
    ]
    nothing(found)


def test_licence_and_version_stand_where_tools_look() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', (ROOT / "caa/__init__.py").read_text(), re.MULTILINE)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_test_belongs_to_a_suite() -> None:
    """A folder of tests that `.ci/suites.py` does not name would never run."""
    tree = ast.parse((ROOT / ".ci/suites.py").read_text())
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    nothing(folders - named)


def test_what_a_test_needs_is_installed_by_the_set_up() -> None:
    """On a fresh machine such a test would skip, and fail in CI. Go comes from a lock of its own."""
    rows = (line.split() for line in (ROOT / ".ci/packages.txt").read_text().splitlines())
    known = {row[0] for row in rows if row} | {"go"}
    named = {
        (str(path.relative_to(ROOT)), one.value)
        for path in (ROOT / "tests").rglob("test_*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "needs"
        for one in call.args
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }
    nothing(f"{path}: {tool}" for path, tool in named if not {tool, Path(tool).name} & known)


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    nothing(broken)


def test_paths_that_documents_name_exist() -> None:
    """A module may be named without its ending; a path with a placeholder in it is nobody's."""
    named = re.compile(r"`((?:caa|providers|podvm|tests|docs|deploy|\.ci)/[\w./-]+)`")
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
        for path in named.findall(page.read_text())
        if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    ]
    nothing(missing)
