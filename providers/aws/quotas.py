"""How much of the account's quotas is left: pure functions of what Service Quotas and EC2 list."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Reply = Mapping[str, Any]

ELASTIC_IPS = "EC2-VPC Elastic IPs"
_ON_DEMAND = re.compile(r"Running On-Demand (.+) instances")
_SPOT = re.compile(r"All (.+) Spot Instance Requests")
_FAMILY = re.compile(r"[a-z]+")


def family(instance_type: str) -> str:
    """The letters of a type that its quota names: `m` of m6a.large, `inf` of inf2.xlarge, `g` of g4dn.xlarge."""
    found = _FAMILY.match(instance_type)
    return found[0] if found else ""


def quota_of(quotas: Iterable[Reply], instance_type: str, *, spot: bool) -> tuple[str, float, frozenset[str]] | None:
    """The name of a type's vCPU quota, its value, and the families that share it; None when AWS lists none.

    The families are in the name: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", "... G and VT".
    """
    for one in quotas:
        name = str(one.get("QuotaName", ""))
        found = (_SPOT if spot else _ON_DEMAND).fullmatch(name)
        words = frozenset(re.findall(r"[a-z]+", found[1].lower())) if found else frozenset()
        if family(instance_type) in words:
            return name, float(one.get("Value") or 0), words
    return None


def elastic_ips(quotas: Iterable[Reply]) -> float | None:
    """How many Elastic IPs the account may have in the region; None when AWS does not say."""
    values = [float(one.get("Value") or 0) for one in quotas if one.get("QuotaName") == ELASTIC_IPS]
    return values[0] if values else None


def used(instances: Sequence[Reply], families: frozenset[str], *, spot: bool) -> int:
    """The vCPUs that instances of these families take, whoever's they are."""
    return sum(
        _vcpus(one)
        for one in instances
        if family(str(one.get("InstanceType", ""))) in families
        and (one.get("InstanceLifecycle") == "spot") is spot
        and (one.get("State") or {}).get("Name") in ("pending", "running")
    )


def _vcpus(instance: Reply) -> int:
    options = instance.get("CpuOptions") or {}
    return int(options.get("CoreCount") or 1) * int(options.get("ThreadsPerCore") or 1)
