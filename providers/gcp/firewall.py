"""Pure: whether firewall rules and policies let a port in to our pod VMs, as far as can be told from here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Reply = Mapping[str, Any]

_NUMBERS: Mapping[str, str] = MappingProxyType({"tcp": "6", "udp": "17"})
_EVERYBODY = frozenset({"0.0.0.0/0", "::/0"})
_LOWEST = 2**31 - 1  # priority: smaller counts first
_OTHER_TARGETS = ("targetResources", "targetSecureTags", "targetForwardingRules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What rules may select a pod VM by."""

    tags: frozenset[str]
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it is let in, and the rule that says so; "" for the rule that every network ends with."""

    open: bool
    rule: str = ""


def verdict(found: Reply, machine: Machine, *, protocol: str, port: int) -> Verdict:
    """Policies of the organisation first, then the network's rules, then its policies; in each by priority.

    A rule that opens counts whatever sources it names, as nobody knows here which addresses nodes have; one that
    closes counts when it is for everybody ("Firewall policies", "Policy and rule evaluation order").
    """
    policies = found.get("firewallPolicys") or ()
    above = [one for one in policies if one.get("type", "HIERARCHY") == "HIERARCHY"]
    below = [one for one in policies if one not in above]
    for rules in (*map(_of_policy, above), _of_network(found.get("firewalls") or ()), *map(_of_policy, below)):
        said = _first(rules, machine, protocol=protocol, port=port)
        if said is not None:
            return said
    return Verdict(open=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    name: str
    priority: int
    action: str  # "allow", "deny"; anything else asks who comes next
    protocols: Iterable[Reply]  # of {"IPProtocol", "ports"}
    everybody: bool
    body: Reply


def _first(rules: Iterable[_Rule], machine: Machine, *, protocol: str, port: int) -> Verdict | None:
    # At one priority, what closes comes before what opens.
    for one in sorted(rules, key=lambda rule: (rule.priority, rule.action != "deny")):
        if not _is_for(one.body, machine) or not _has(one.protocols, protocol, port=port):
            continue
        if one.action == "allow":
            return Verdict(open=True, rule=one.name)
        if one.everybody:
            return Verdict(open=False, rule=one.name) if one.action == "deny" else None
    return None


def _of_network(rules: Iterable[Reply]) -> Iterator[_Rule]:
    for one in _inward(rules):
        sources = set(one.get("sourceRanges") or ())
        others = one.get("sourceTags") or one.get("sourceServiceAccounts")
        for action, key in (("allow", "allowed"), ("deny", "denied")):
            yield _Rule(
                name=str(one.get("name", "")),
                priority=int(one.get("priority", 1000)),
                action=action,
                protocols=one.get(key) or (),
                everybody=not others and _is_everybody(sources),
                body=one,
            )


def _of_policy(policy: Reply) -> Iterator[_Rule]:
    for one in _inward(policy.get("rules") or ()):
        match = one.get("match") or {}
        layers = match.get("layer4Configs") or ({"ipProtocol": "all"},)
        others = [key for key, value in match.items() if key.startswith("src") and key != "srcIpRanges" and value]
        yield _Rule(
            name=f"{policy.get('shortName') or policy.get('name', '')} {one.get('priority', '')}".strip(),
            priority=int(one.get("priority", _LOWEST)),
            action=str(one.get("action", "")),
            protocols=[{"IPProtocol": layer.get("ipProtocol"), "ports": layer.get("ports")} for layer in layers],
            everybody=not others and _is_everybody(set(match.get("srcIpRanges") or ())),
            body=one,
        )


def _is_everybody(ranges: set[str]) -> bool:
    return not ranges or bool(ranges & _EVERYBODY)


def _inward(rules: Iterable[Reply]) -> Iterator[Reply]:
    return (one for one in rules if one.get("direction", "INGRESS") == "INGRESS" and not one.get("disabled"))


def _is_for(rule: Reply, machine: Machine) -> bool:
    if any(rule.get(key) for key in _OTHER_TARGETS):
        return False
    tags, accounts = rule.get("targetTags"), rule.get("targetServiceAccounts")
    return (not tags or bool(machine.tags & set(tags))) and (not accounts or machine.account in accounts)


def _has(protocols: Iterable[Reply], protocol: str, *, port: int) -> bool:
    for one in protocols:
        if str(one.get("IPProtocol", "")).lower() not in ("all", protocol, _NUMBERS[protocol]):
            continue
        ports = one.get("ports") or ["0-65535"]
        if any(int(low) <= port <= int(high or low) for low, _, high in (text.partition("-") for text in ports)):
            return True
    return False
