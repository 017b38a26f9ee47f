"""What every driver's `check` shares: one error stops the questions, an error of the cloud is a finding, limits."""

from collections.abc import Sequence

import pytest

from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.errors import CredentialsError
from caa.model.instance import Finding, InstanceType, Severity, Tee
from caa.provider import checks
from caa.provider.rows import CLOUD_ROWS

VALUES = load((*NODE_ROWS, *CLOUD_ROWS), {"FORWARDER_PORT": "15151", "FALLBACK_TYPES": "a,b"})
WORDS = checks.TypeWords("is not here", "THE_TYPES")


async def fine() -> Sequence[Finding]:
    return [checks.ok("x", "fine")]


async def refused() -> Sequence[Finding]:
    raise CredentialsError("UnauthorizedOperation: no")


async def test_an_error_of_the_first_question_is_told_alone() -> None:
    found = await checks.in_turn(("who", refused), ("x", fine), page="cloud.md")
    assert [(one.subject, one.severity) for one in found] == [("who", Severity.ERROR)]
    assert found[0].detail == "UnauthorizedOperation: no"
    assert "docs/providers/cloud.md" in found[0].remedy


async def test_an_error_of_a_later_question_hides_no_other() -> None:
    found = await checks.in_turn(("x", fine), ("y", refused), ("x", fine), page="cloud.md")
    assert [one.severity for one in found] == [Severity.OK, Severity.ERROR, Severity.OK]


@pytest.mark.parametrize(("count", "severity"), [(16, Severity.OK), (15, Severity.WARNING), (0, Severity.ERROR)])
def test_what_is_left(count: int, severity: Severity) -> None:
    assert checks.left("quota", f"{count} left", count=count, remedy="ask").severity is severity


def test_types_that_are_absent_or_have_no_tee() -> None:
    known = [InstanceType(name="plain", vcpus=1, memory_mib=1), InstanceType(name="snp", vcpus=1, memory_mib=1)]
    known[1] = InstanceType(name="snp", vcpus=1, memory_mib=1, tees=frozenset({Tee.SNP}))
    wanted = ["plain", "snp", "gone"]
    told = checks.types(known, wanted, values=VALUES, confidential=True, words=WORDS)
    assert [(one.severity, one.detail.split()[0]) for one in told] == [
        (Severity.WARNING, "gone"), (Severity.WARNING, "plain"), (Severity.OK, "2"),
    ]  # fmt: skip
    assert told[0].remedy == "correct THE_TYPES"
    assert "a, then b" in told[-1].detail
    assert len(checks.types(known, wanted, values=VALUES, confidential=False, words=WORDS)) == 2


def test_ports_are_those_of_the_settings() -> None:
    asked: list[tuple[str, int]] = []

    def lets_in(protocol: str, port: int) -> bool:
        asked.append((protocol, port))
        return protocol == "tcp"

    def shut(port: str, what: str) -> Finding:
        return checks.error("rules", f"{port}: {what}", remedy="open")

    told = checks.ports("rules", VALUES, lets_in=lets_in, told=shut)
    assert asked == [("tcp", 15151), ("udp", 4789)]
    assert [one.severity for one in told] == [Severity.OK, Severity.ERROR]
    assert told[1].detail.startswith("udp 4789: the pod network")
