"""`caa doctor`: a driver's findings as lines, and the status that a script reads."""

import asyncio
from collections.abc import Sequence

import pytest

from caa.errors import CredentialsError, DeadlineExceeded
from caa.model.instance import Finding, Severity
from caa.node.doctor import report


class Driver:
    """As much of a driver as is asked; `found` may be an error, or nothing for one that never answers."""

    def __init__(self, found: Sequence[Finding] | Exception | None) -> None:
        self.found = found
        self.closed = 0

    async def check(self) -> Sequence[Finding]:
        if isinstance(self.found, Exception):
            raise self.found
        if self.found is None:
            await asyncio.Event().wait()
            raise AssertionError
        return self.found

    async def close(self) -> None:
        self.closed += 1


def finding(severity: Severity, detail: str = "as it is", remedy: str = "") -> Finding:
    return Finding(severity=severity, subject="image", detail=detail, remedy=remedy)


@pytest.mark.parametrize(
    ("found", "text", "status"),
    [
        ([], "", 0),
        ([finding(Severity.OK)], "ok      image: as it is\n", 0),
        ([finding(Severity.WARNING, remedy="wait")], "warning image: as it is\n        -> wait\n", 0),
        (
            [finding(Severity.ERROR, "two\nlines", "do this"), finding(Severity.OK)],
            "error   image: two\n        lines\n        -> do this\nok      image: as it is\n",
            1,
        ),
    ],
)
async def test_findings(found: list[Finding], text: str, status: int) -> None:
    driver = Driver(found)
    assert await report(driver, limit=5) == (text, status)  # type: ignore[arg-type]
    assert driver.closed == 1


async def test_an_error_of_the_driver_goes_on_and_closes_it() -> None:
    driver = Driver(CredentialsError("no token"))
    with pytest.raises(CredentialsError):
        await report(driver, limit=5)  # type: ignore[arg-type]
    assert driver.closed == 1


async def test_a_cloud_that_never_answers() -> None:
    driver = Driver(None)
    with pytest.raises(DeadlineExceeded, match=r"after 0.01 s: see the node's network"):
        await report(driver, limit=0.01)  # type: ignore[arg-type]
    assert driver.closed == 1
