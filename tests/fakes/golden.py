"""Texts that people review: compared with a file, which is written anew when somebody removed it."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden"


def assert_golden(name: str, text: str) -> None:
    """Fail unless `text` is what tests/data/golden/NAME holds. Remove that file, run, and review what comes."""
    path = FOLDER / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        raise AssertionError(f"{path} was written: review it, commit it, run again")
    assert text == path.read_text(), f"differs from {path}; if that is meant, remove it, run again, review"
