"""Which requests are denied: a list, and the plain `default NAME := true|false` lines of a policy document.

No Rego is evaluated: the sample policies of CoCo consist of such lines, and tests need a denial, not a language.
"""

import re

from caa.testing.agent.answers import error

_DEFAULT = re.compile(r"^\s*default\s+(?P<name>\w+)\s*:?=\s*(?P<value>true|false)\s*$", re.MULTILINE)


class Policy:
    """`denied` stays denied whatever a document says."""

    def __init__(self, denied: frozenset[str], document: str = "") -> None:
        self._always = denied
        self._denied = denied
        self.replace(document)

    def replace(self, document: str) -> None:
        """Take the document's word from now on."""
        values = {match["name"]: match["value"] == "true" for match in _DEFAULT.finditer(document)}
        self._denied = self._always | {name for name, allowed in values.items() if not allowed}

    def check(self, request: str) -> None:
        """Raise the recorded denial, quotes and all, when requests of that name are not allowed."""
        if request in self._denied:
            raise error(7, f'"{request} is blocked by policy: "')
