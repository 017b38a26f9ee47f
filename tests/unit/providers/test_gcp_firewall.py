"""Which port is let in: rules and policies in the order in which Google asks them."""

from typing import Any

import pytest

from providers.gcp.firewall import Machine, verdict

OURS = Machine(tags=frozenset({"podvm"}), account="vm@p-1.iam.gserviceaccount.com")
ALL = [{"IPProtocol": "all"}]


def said(*rules: dict[str, Any], policies: tuple[dict[str, Any], ...] = ()) -> tuple[bool, str]:
    found = verdict({"firewalls": list(rules), "firewallPolicys": list(policies)}, OURS, protocol="tcp", port=15150)
    return found.open, found.rule


@pytest.mark.parametrize(
    ("rule", "open_"),
    [
        ({"allowed": [{"IPProtocol": "tcp", "ports": ["15150"]}]}, True),
        ({"allowed": [{"IPProtocol": "6", "ports": ["15000-16000"]}]}, True),
        ({"allowed": [{"IPProtocol": "tcp"}]}, True),
        ({"allowed": ALL}, True),
        ({"allowed": ALL, "sourceRanges": ["10.0.0.0/8"]}, True),
        ({"allowed": [{"IPProtocol": "udp", "ports": ["15150"]}]}, False),
        ({"allowed": [{"IPProtocol": "tcp", "ports": ["22", "80-90"]}]}, False),
        ({"allowed": ALL, "disabled": True}, False),
        ({"allowed": ALL, "direction": "EGRESS"}, False),
        ({"allowed": ALL, "targetTags": ["podvm"]}, True),
        ({"allowed": ALL, "targetTags": ["web"]}, False),
        ({"allowed": ALL, "targetServiceAccounts": [OURS.account]}, True),
        ({"allowed": ALL, "targetServiceAccounts": ["web@p-1.iam.gserviceaccount.com"]}, False),
        ({"denied": ALL}, False),
    ],
)
def test_one_rule(rule: dict[str, Any], open_: bool) -> None:
    assert said(rule)[0] is open_


OPEN = {"name": "open", "allowed": ALL, "priority": 1000}
SHUT = {"name": "shut", "denied": ALL, "priority": 900, "sourceRanges": ["0.0.0.0/0"]}


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([OPEN, SHUT], (False, "shut")),
        ([OPEN | {"priority": 800}, SHUT], (True, "open")),
        ([OPEN | {"priority": 900}, SHUT], (False, "shut")),
        ([OPEN, SHUT | {"sourceRanges": ["192.0.2.0/24"]}], (True, "open")),
        ([OPEN, SHUT | {"sourceTags": ["web"], "sourceRanges": []}], (True, "open")),
        ([OPEN, SHUT | {"targetTags": ["web"]}], (True, "open")),
        ([OPEN, SHUT | {"denied": [{"IPProtocol": "udp"}]}], (True, "open")),
        ([], (False, "")),
    ],
)
def test_priorities(rules: list[dict[str, Any]], verdict: tuple[bool, str]) -> None:
    assert said(*rules) == verdict
    assert said(*reversed(rules)) == verdict


def policy(action: str, kind: str = "HIERARCHY", **other: Any) -> dict[str, Any]:
    match = {"layer4Configs": [{"ipProtocol": "tcp", "ports": ["15150"]}], **other.pop("match", {})}
    rule = {"action": action, "direction": "INGRESS", "priority": 10, "match": match, **other}
    return {"type": kind, "shortName": "org", "rules": [rule]}


@pytest.mark.parametrize(
    ("policies", "rules", "verdict"),
    [
        ((policy("deny"),), [OPEN], (False, "org 10")),
        ((policy("allow"),), [], (True, "org 10")),
        ((policy("goto_next"),), [OPEN], (True, "open")),
        ((policy("deny", match={"srcIpRanges": ["192.0.2.0/24"]}),), [OPEN], (True, "open")),
        ((policy("deny", match={"srcIpRanges": ["0.0.0.0/0"]}),), [OPEN], (False, "org 10")),
        ((policy("deny", match={"srcRegionCodes": ["XX"]}),), [OPEN], (True, "open")),
        ((policy("deny", targetSecureTags=[{"name": "tagValues/1"}]),), [OPEN], (True, "open")),
        ((policy("deny", disabled=True),), [OPEN], (True, "open")),
        ((policy("deny", "NETWORK"),), [OPEN], (True, "open")),
        ((policy("allow", "NETWORK"),), [], (True, "org 10")),
        ((policy("allow", "NETWORK"),), [SHUT], (False, "shut")),
        ((policy("goto_next"), policy("deny")), [OPEN], (False, "org 10")),
    ],
)
def test_policies(policies: tuple[dict[str, Any], ...], rules: list[dict[str, Any]], verdict: tuple[bool, str]) -> None:
    assert said(*rules, policies=policies) == verdict
