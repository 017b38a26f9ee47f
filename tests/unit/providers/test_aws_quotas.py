"""Quotas by the family of a type, as AWS names them."""

import pytest

from providers.aws import quotas

STANDARD = "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"
LISTED = [
    {"QuotaName": "Running Dedicated m6a Hosts", "Value": 1.0},
    {"QuotaName": STANDARD, "Value": 5.0},
    {"QuotaName": "Running On-Demand G and VT instances", "Value": 8.0},
    {"QuotaName": "Running On-Demand Inf instances", "Value": 9.0},
    {"QuotaName": "All G and VT Spot Instance Requests", "Value": 7.0},
    {"QuotaName": "EC2-VPC Elastic IPs", "Value": 5.0},
]


@pytest.mark.parametrize(
    ("kind", "spot", "value"),
    [
        ("m6a.large", False, 5.0),
        ("c6a.xlarge", False, 5.0),
        ("g4dn.xlarge", False, 8.0),
        ("vt1.3xlarge", False, 8.0),
        ("g4dn.xlarge", True, 7.0),
        ("inf2.xlarge", False, 9.0),
        ("i4i.large", False, 5.0),
    ],
)
def test_each_family_has_its_own(kind: str, spot: bool, value: float) -> None:
    found = quotas.quota_of(LISTED, kind, spot=spot)
    assert found is not None
    assert found[1] == value


@pytest.mark.parametrize(("kind", "spot"), [("m6a.large", True), ("p5.48xlarge", False), ("u-6tb1.metal", False)])
def test_what_aws_lists_none_for(kind: str, spot: bool) -> None:
    assert quotas.quota_of(LISTED, kind, spot=spot) is None


def test_what_counts_as_used() -> None:
    def one(kind: str, state: str = "running", lifecycle: str | None = None, cores: int = 2) -> dict[str, object]:
        return {
            "InstanceType": kind,
            "State": {"Name": state},
            "CpuOptions": {"CoreCount": cores, "ThreadsPerCore": 2},
            **({"InstanceLifecycle": lifecycle} if lifecycle else {}),
        }

    living = [
        one("m6a.large"), one("c6a.large", "pending", cores=1), one("g4dn.xlarge"), one("m5.large", lifecycle="spot"),
        one("m5.large", "stopped"), {"InstanceType": "m5.large", "State": {"Name": "running"}},
    ]  # fmt: skip
    families = frozenset("acdhimrtz")
    assert quotas.used(living, families, spot=False) == 4 + 2 + 1
    assert quotas.used(living, families, spot=True) == 4


def test_elastic_ips() -> None:
    assert quotas.elastic_ips(LISTED) == 5.0
    assert quotas.elastic_ips([]) is None
