"""Whose a resource is, as tags (labels) on everything that a driver makes, and back. No I/O.

Every cloud gets the same keys. Where a cloud's values are too short or its alphabet too small for ours, values are
escaped (`_` and two hex digits a byte) and cut into several tags (`caa-sandbox`, `caa-sandbox-1`), so that they come
back as they were.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from caa.errors import ConfigError
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner

PREFIX = "caa-"
CLUSTER, NODE, SANDBOX, NAME = "caa-cluster", "caa-node", "caa-sandbox", "caa-name"
NAMESPACE, POD = "caa-namespace", "caa-pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLimits:
    """What a cloud allows: characters of a key and of a value, tags of a resource, and what both have to match.

    `plain` is a regular expression of one character that a value may hold as it is; "" allows all. `reserved` are
    prefixes of keys that the cloud keeps for itself, in lower case.
    """

    key: int
    value: int
    count: int
    key_pattern: str = r".+"
    value_pattern: str = r".*"
    plain: str = ""
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """What the tags of a resource say."""

    owner: Owner
    name: str
    sandbox: SandboxId


def written(request: LaunchRequest, user_tags: Mapping[str, str], *, limits: TagLimits) -> dict[str, str]:
    """All tags of a resource that is made for `request`: the operator's, then ours."""
    ours = {
        CLUSTER: request.owner.cluster,
        NODE: request.owner.node,
        SANDBOX: request.sandbox,
        NAME: request.name,
        NAMESPACE: request.namespace,
        POD: request.pod,
    }
    return {**user_tags, **request.tags, **_encoded(ours, limits)}


def of_owner(owner: Owner, *, limits: TagLimits) -> dict[str, str]:
    """The tags that select everything of an owner. `read` what is found and compare: a cloud's filter may be looser."""
    return _encoded({CLUSTER: owner.cluster, NODE: owner.node}, limits)


def of_sandbox(owned: Owned, *, limits: TagLimits) -> dict[str, str]:
    """The tags that select everything of one sandbox."""
    return {**of_owner(owned.owner, limits=limits), **_encoded({SANDBOX: owned.sandbox}, limits)}


def read(tags: Mapping[str, str], *, limits: TagLimits) -> Owned | None:
    """What the tags say; None when the resource is not one of ours."""
    if CLUSTER not in tags or NODE not in tags:
        return None
    cluster, node, sandbox, name = (_decoded(key, tags, limits=limits) for key in (CLUSTER, NODE, SANDBOX, NAME))
    return Owned(owner=Owner(cluster=cluster, node=node), sandbox=SandboxId(sandbox), name=name)


def refuse_illegal(tags: Mapping[str, str], *, limits: TagLimits) -> None:
    """Raise `ConfigError`, naming TAGS, when the cloud would refuse the operator's tags on the first pod."""
    if problems := list(_problems(tags, limits)):
        raise ConfigError("TAGS: " + "; ".join(problems))


def _problems(tags: Mapping[str, str], limits: TagLimits) -> Iterator[str]:
    ours = 12  # of our own, some of them cut in two
    if len(tags) > limits.count - ours:
        yield f"{len(tags)} tags, this cloud has room for {limits.count - ours} beside ours; remove some"
    for key, value in tags.items():
        if key.lower().startswith((PREFIX, *limits.reserved)):
            yield f"the key {key!r} is reserved; choose one that does not begin with {PREFIX}" + "".join(
                f" or {prefix}" for prefix in limits.reserved
            )
        elif len(key) > limits.key or not re.fullmatch(limits.key_pattern, key):
            yield f"the key {key[:80]!r} is not allowed here: at most {limits.key} characters, {limits.key_pattern}"
        if len(value) > limits.value or not re.fullmatch(limits.value_pattern, value):
            yield f"the value of {key[:80]!r} is not allowed: at most {limits.value} characters, {limits.value_pattern}"


def _encoded(values: Mapping[str, str], limits: TagLimits) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key, value in values.items():
        text = _escaped(value, limits)
        parts = [text[at : at + limits.value] for at in range(0, len(text), limits.value)] or [""]
        tags |= {f"{key}-{number}" if number else key: part for number, part in enumerate(parts)}
    return tags


def _escaped(value: str, limits: TagLimits) -> str:
    if not limits.plain:
        return value
    return "".join(
        one if one != "_" and re.fullmatch(limits.plain, one) else "".join(f"_{byte:02x}" for byte in one.encode())
        for one in value
    )


def _decoded(key: str, tags: Mapping[str, str], *, limits: TagLimits) -> str:
    text, number = tags.get(key, ""), 1
    while (part := tags.get(f"{key}-{number}")) is not None:
        text, number = text + part, number + 1
    if not limits.plain:
        return text
    raw = re.sub(rb"_([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode())
    return raw.decode(errors="replace")
