"""IAM policy documents: what is not listed is denied. Read from the page that operators copy them from."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers" / "aws.md"
_KINDS = {"i": "instance", "vol": "volume", "eni": "network-interface", "eipalloc": "elastic-ip"}
_ON_RESOURCES = frozenset(
    {"TerminateInstances", "AttachVolume", "AssociateAddress", "DisassociateAddress", "ReleaseAddress",
     "GetConsoleOutput"}
)  # fmt: skip

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """What is allowed: actions and resources as patterns, and tags that a resource has to have."""

    actions: Sequence[str]
    resource: str = "*"
    tags: Tags = field(default_factory=dict)

    def allows(self, action: str, resource: str, tags: Tags | None) -> bool:
        """Whether it covers this action on this resource, "" for none; tags None are those of what does not exist."""
        return (
            any(fnmatchcase(action, one) for one in self.actions)
            and (self.resource == "*" or fnmatchcase(resource, self.resource))
            and all((tags or {}).get(key) == value for key, value in self.tags.items())
        )


class Policy:
    """Which actions a caller may use. `used` are those that were asked for and allowed."""

    def __init__(self, allowed: list[str], statements: Sequence[Statement] = ()) -> None:
        self._statements = [Statement(allowed), *statements]
        self.used: set[str] = set()

    @classmethod
    def of_page(cls, page: Path = PAGE, *, narrowed: bool = False) -> "Policy":
        """The page's document; `narrowed` with the page's own replacement for one of its statements."""
        documents = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)]
        statements = {one["Sid"]: one for one in documents[0]["Statement"]}
        if narrowed:
            statements |= {one["Sid"]: one for one in documents[1]["Statement"]}
        return cls([], [_statement(one) for one in statements.values()])

    @property
    def listed(self) -> set[str]:
        """Every action the document names."""
        return {action for one in self._statements for action in one.actions}

    def missing(
        self, action: str, form: Mapping[str, str], tags_of: Callable[[str], Tags | None], *, service: str = "ec2"
    ) -> list[str]:
        """The rights that the call needs and nobody gave."""
        needed = [f"{service}:{action}", *_further(action, form)]
        touched = _touched(form) if action in _ON_RESOURCES else {}
        resources = {f"arn:aws:ec2:r:a:{_KINDS.get(name.split('-')[0], 'x')}/{name}": tags_of(name) for name in touched}
        denied = [one for one in needed if not self._given(one, resources or {"": None})]
        if not denied:
            self.used |= set(needed)
        return denied

    def _given(self, action: str, resources: Mapping[str, Tags | None]) -> bool:
        return all(
            any(one.allows(action, resource, tags) for one in self._statements) for resource, tags in resources.items()
        )


def _statement(found: Mapping[str, object]) -> Statement:
    condition: dict[str, dict[str, str]] = dict(found.get("Condition") or {})  # type: ignore[call-overload]
    tags = {key.removeprefix("aws:ResourceTag/"): value for key, value in condition.get("StringEquals", {}).items()}
    return Statement(list(found["Action"]), str(found["Resource"]), tags)  # type: ignore[call-overload]


def _touched(form: Mapping[str, str]) -> set[str]:
    names = ("InstanceId", "VolumeId", "NetworkInterfaceId", "AllocationId", "AssociationId")
    return {value for key, value in form.items() if key.split(".")[0] in names}


def _further(action: str, form: Mapping[str, str]) -> list[str]:
    tags = any(key.startswith("TagSpecification") for key in form)
    profile = any(key.startswith("IamInstanceProfile") for key in form)
    return [
        *(["ec2:CreateTags"] if tags and action != "CreateTags" else []),
        *(["iam:PassRole"] if profile else []),
    ]
