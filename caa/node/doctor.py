"""`caa doctor`: what the driver's check finds, as text for an operator. Nothing is made, and no node has to run."""

import asyncio
from collections.abc import Iterable

from caa.config.identity import CLOUD_PROVIDER
from caa.config.load import Settings
from caa.errors import DeadlineExceeded
from caa.model.instance import Finding, Severity
from caa.provider.contract import Provider
from caa.provider.registry import driver

_LIMIT = 180.0  # seconds; clouds are asked with retries


async def examine(settings: Settings) -> tuple[str, int]:
    """The findings, one a line with its remedy below, and the exit status: 1 when pods cannot start.

    Raises `ConfigError`, `ProviderError`, and `DeadlineExceeded` for a cloud that does not answer.
    """
    return await report(driver(settings[CLOUD_PROVIDER]).make(settings), limit=_LIMIT)


async def report(provider: Provider, *, limit: float) -> tuple[str, int]:
    """The same of a driver, which is closed at the end."""
    try:
        async with asyncio.timeout(limit):
            found = list(await provider.check())
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the cloud has not answered all questions after {limit:g} s: see the node's network and its proxy"
        ) from error
    finally:
        await provider.close()
    return "".join(map(_lines, found)), int(any(one.severity is Severity.ERROR for one in found))


def _lines(finding: Finding) -> str:
    lines: Iterable[str] = (finding.detail, *([f"-> {finding.remedy}"] if finding.remedy else ()))
    first, *others = (text for line in lines for text in line.splitlines())
    return "\n".join([f"{finding.severity:<8}{finding.subject}: {first}", *(f"{'':8}{one}" for one in others)]) + "\n"
