"""What every suite shares: a test says which tool or right it needs; lacking it skips here and fails in CI."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _package_of(tool: str) -> str:
    for line in (ROOT / ".ci" / "packages.txt").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == tool:
            return f" (Debian package {words[1]})"
    return ""


def _present(tool: str) -> bool:
    if tool.startswith("/"):
        return Path(tool).exists()
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _lack(item: pytest.Item) -> str | None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if not _present(tool):
                return f"needs {tool}{_package_of(tool)}, which is not installed"
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root (namespaces, mounts): run the suite as root"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    lack = _lack(item)
    if lack:
        pytest.skip(lack)


class SkipsFail:
    """In CI a skipped test or module fails the run: nobody reads a skip there."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.skipped:
            terminalreporter.write_line(f"FAILED in CI because it was skipped: {nodeid}")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(SkipsFail())
