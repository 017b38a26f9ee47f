"""What the `check` of every cloud's driver is made of: findings, the launch that is tried, what is no cloud's own.

`check` answers with findings, never with an exception: `in_turn` turns a driver's error into one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from caa.config.load import Settings
from caa.config.node import FORWARDER_PORT, VXLAN_PORT
from caa.errors import ProviderError
from caa.model.ids import SandboxId
from caa.model.instance import Finding, InstanceType, LaunchRequest, Owner, Severity
from caa.provider.rows import FALLBACK_TYPES, given

FEW = 16  # addresses, vCPUs or instances: below it a finding is a warning, without any an error

# A pod that asks for nothing, which is planned and tried by a dry run, never made.
PROBE = LaunchRequest(
    name="podvm-check",
    sandbox=SandboxId("check"),
    owner=Owner(cluster="check", node="check"),
    token="check",  # noqa: S106  # no secret
    user_data=b"#cloud-config\n",
)


@dataclass(frozen=True, slots=True)
class TypeWords:
    """What is said of a type that the cloud does not have here, and the names of the settings for types."""

    absent: str
    settings: str


# What it is about, and how to find out.
Question = tuple[str, Callable[[], Awaitable[Sequence[Finding]]]]


def ok(subject: str, detail: str) -> Finding:
    """All is well."""
    return Finding(severity=Severity.OK, subject=subject, detail=detail)


def warning(subject: str, detail: str, *, remedy: str) -> Finding:
    """Some pods will not start, or not for long."""
    return Finding(severity=Severity.WARNING, subject=subject, detail=detail, remedy=remedy)


def error(subject: str, detail: str, *, remedy: str) -> Finding:
    """No pod will start."""
    return Finding(severity=Severity.ERROR, subject=subject, detail=detail, remedy=remedy)


async def in_turn(first: Question, *others: Question, page: str) -> list[Finding]:
    """The answers to all questions; to `first` alone when it is an error, which all others would only repeat.

    The others are asked at the same time. `page` is the driver's page in docs/providers.
    """
    found = await _asked(first, page)
    if any(one.severity is Severity.ERROR for one in found):
        return found
    parts = await asyncio.gather(*(_asked(one, page) for one in others))
    return [*found, *(finding for part in parts for finding in part)]


def left(subject: str, detail: str, *, count: float, remedy: str) -> Finding:
    """How much of something is left, which `detail` says in words."""
    if count >= FEW:
        return ok(subject, detail)
    return warning(subject, detail, remedy=remedy) if count > 0 else error(subject, detail, remedy=remedy)


def types(
    known: Iterable[InstanceType],
    wanted: Iterable[str],
    *,
    values: Settings,
    confidential: bool,
    words: TypeWords,
) -> list[Finding]:
    """What the catalogue says of the types that settings name."""
    by_name = {one.name: one for one in known}
    subject = "instance types"
    found = [
        warning(subject, f"{name} {words.absent}; no pod gets it", remedy=f"correct {words.settings}")
        for name in sorted(set(wanted) - by_name.keys())
    ]
    if confidential:
        remedy = f"take it out of {words.settings}, or set DISABLECVM=true"
        found += [
            warning(subject, f"{name} has no TEE; no pod gets it while DISABLECVM is false", remedy=remedy)
            for name, one in sorted(by_name.items())
            if not one.tees
        ]
    further = values[FALLBACK_TYPES]
    fallback = ", then ".join(further) or "none"
    return [*found, ok(subject, f"{len(by_name)} known; when there is no room: {fallback}")]


def ports(
    subject: str, values: Settings, *, lets_in: Callable[[str, int], bool], told: Callable[[str, str], Finding]
) -> list[Finding]:
    """Whether nodes reach the forwarder and the tunnel. `told` makes a finding of `tcp 15150` and what it is."""
    needed = (
        ("tcp", given(values, FORWARDER_PORT), "the forwarder (FORWARDER_PORT)"),
        ("udp", given(values, VXLAN_PORT), "the pod network (VXLAN_PORT)"),
    )
    return [
        ok(subject, f"{what} is let in") if lets_in(protocol, port) else told(f"{protocol} {port}", what)
        for protocol, port, what in needed
    ]


async def _asked(question: Question, page: str) -> list[Finding]:
    subject, ask = question
    try:
        return list(await ask())
    except ProviderError as told:
        remedy = told.remedy or f"see docs/providers/{page}, troubleshooting by error text"
        return [error(subject, str(told), remedy=remedy)]
