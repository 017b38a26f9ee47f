"""An IAM policy document: what is not listed is denied. Read from the page that operators copy it from."""

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers" / "aws.md"


class Policy:
    """Which actions a caller may use. `used` are those that were asked for and allowed."""

    def __init__(self, allowed: list[str]) -> None:
        self._allowed = allowed
        self.used: set[str] = set()

    @classmethod
    def of_page(cls, page: Path = PAGE) -> "Policy":
        """The first JSON block of the page that has statements."""
        for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
            document = json.loads(block)
            if "Statement" in document:
                return cls([one for statement in document["Statement"] for one in statement["Action"]])
        raise LookupError(f"{page} has no policy")

    @property
    def listed(self) -> set[str]:
        """Every action the document names."""
        return set(self._allowed)

    def missing(self, action: str, form: Mapping[str, str]) -> list[str]:
        """The rights that the call needs and nobody gave."""
        needed = [f"ec2:{action}", *_further(action, form)]
        denied = [one for one in needed if not any(fnmatchcase(one, allowed) for allowed in self._allowed)]
        if not denied:
            self.used |= set(needed)
        return denied


def _further(action: str, form: Mapping[str, str]) -> list[str]:
    tags = any(key.startswith("TagSpecification") for key in form)
    profile = any(key.startswith("IamInstanceProfile") for key in form)
    return [
        *(["ec2:CreateTags"] if tags and action != "CreateTags" else []),
        *(["iam:PassRole"] if profile else []),
    ]
