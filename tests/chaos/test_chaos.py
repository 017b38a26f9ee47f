"""The short chaos run, a row at a time; rows whose parts are not there yet are not selected."""

import json
import subprocess
import sys

import pytest

from tests.chaos.rows import ROWS

AVAILABLE = [name for name, row in ROWS.items() if row.available]


@pytest.mark.root
@pytest.mark.needs("runc", "nft", "ip", "unshare", "busybox")
@pytest.mark.parametrize("row", AVAILABLE)
def test_nothing_is_lost(row, tmp_path):
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "tests.chaos", "--short", "--rows", row, "--report", str(report)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert report.exists(), done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["ok"], f"seed {found['seed']}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0
    assert all(one["ok"] for one in found["rows"])


def test_what_is_not_run_is_said(capsys):
    others = {name: row for name, row in ROWS.items() if not row.available}
    with capsys.disabled():
        for name, row in others.items():
            print(f"\nchaos: the row {name} is not run: {row.why} ({row.needs} is not there)")  # noqa: T201
    assert AVAILABLE
    assert all(row.why for row in others.values())
