"""Runs lint and the test suites: two at a time where they do not disturb each other, the whole pods alone.

    python .ci/suites.py [SUITE...]

Each suite is one process with a time limit; its output appears when it ends. The last line counts every test.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PRINTING = threading.Lock()


@dataclass(frozen=True)
class Suite:
    """A name, the test folders it runs (none: lint), and the seconds after which it is ended."""

    name: str
    folders: tuple[str, ...]
    limit: int


@dataclass(frozen=True)
class Outcome:
    """How a suite ended: exit status, seconds, and what pytest counted."""

    suite: Suite
    status: int
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0


# Lanes run side by side, the suites of a lane one after the other.
LANES = (
    (
        Suite("lint", (), 300),
        Suite("unit", ("unit", "architecture"), 600),
        Suite("interop", ("interop",), 900),
        Suite("drivers", ("contract", "fakes"), 1800),
    ),
    (
        Suite("functional", ("functional",), 1500),
        Suite("image", ("image",), 2100),  # builds three pod VM images, on one core
    ),
)
# Whole pods have deadlines of their own and measure time: nothing runs beside them.
ALONE = (Suite("e2e", ("e2e",), 1800), Suite("chaos", ("chaos",), 600))


def holding_tests(suite: Suite) -> list[str]:
    """The suite's folders that exist and hold a test module."""
    folders = [ROOT / "tests" / name for name in suite.folders]
    return [str(folder.relative_to(ROOT)) for folder in folders if any(folder.rglob("test_*.py"))]


def command(suite: Suite, folders: Sequence[str], report: Path) -> list[str]:
    """The argument list that runs `suite`."""
    if not suite.folders:
        return [str(ROOT / ".ci" / "lint")]
    return [sys.executable, "-m", "pytest", "--durations=10", f"--junit-xml={report}", *folders]


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report; zeros when there is none."""
    if not report.exists():
        return 0, 0, 0
    total = failed = skipped = 0
    for node in ElementTree.parse(report).iter("testsuite"):
        total += int(node.get("tests", 0))
        failed += int(node.get("failures", 0)) + int(node.get("errors", 0))
        skipped += int(node.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def wait_or_end(process: subprocess.Popen[bytes], limit: int) -> int:
    """The exit status; past `limit` the process group is ended and the status is 124."""
    try:
        return process.wait(limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return 124
        raise


def run(suite: Suite) -> Outcome:
    """Run one suite and print its output; a suite without tests passes, but not in CI."""
    folders = holding_tests(suite)
    if suite.folders and not folders:
        show(suite, b"", "no tests")
        return Outcome(suite, 5 if os.environ.get("CI") == "true" else 0, 0.0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="caa-suite-") as folder:
        report, log = Path(folder, "report.xml"), Path(folder, "log")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command(suite, folders, report), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            status = wait_or_end(process, suite.limit)
        seconds = time.monotonic() - started
        show(suite, log.read_bytes(), f"exit {status}, {seconds:.1f} s")
        return Outcome(suite, status, seconds, *counts(report))


def show(suite: Suite, output: bytes, ending: str) -> None:
    """Print a suite's output in one piece."""
    with PRINTING:
        print(f"\n######## {suite.name} ({ending})", flush=True)
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()


def run_all(suites: Sequence[Suite]) -> list[Outcome]:
    """Run suites one after the other."""
    return [run(suite) for suite in suites]


def wanted(suites: Sequence[Suite], names: Sequence[str]) -> list[Suite]:
    """The suites that the command line names; all when it names none."""
    return [suite for suite in suites if not names or suite.name in names]


def summary(outcomes: Sequence[Outcome]) -> int:
    """Print a table and the closing line; 0 when every suite passed."""
    print(f"\n{'suite':12} {'seconds':>8} {'passed':>7} {'failed':>7} {'skipped':>8}  result")
    for one in outcomes:
        result = {0: "ok", 124: f"ended after {one.suite.limit} s"}.get(one.status, f"failed ({one.status})")
        row = f"{one.suite.name:12} {one.seconds:8.1f} {one.passed:7} {one.failed:7} {one.skipped:8}  {result}"
        print(row)
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    broken = sum(o.status != 0 and o.failed == 0 for o in outcomes)
    print(f"tests: {passed} passed, {failed + broken} failed, {sum(o.skipped for o in outcomes)} skipped", flush=True)
    return 1 if failed or broken or not outcomes else 0


def main(names: Sequence[str]) -> int:
    """Run what is asked for; unknown names are an error."""
    known = {suite.name for suite in [*LANES[0], *LANES[1], *ALONE]}
    if unknown := set(names) - known:
        print(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(len(LANES)) as pool:
        beside = list(pool.map(run_all, [wanted(lane, names) for lane in LANES]))
    return summary([*beside[0], *beside[1], *run_all(wanted(ALONE, names))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
