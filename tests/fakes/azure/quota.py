"""How many vCPUs the fake subscription may use: of the region, of each family of sizes, of spot VMs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure.model import Refused
from tests.fakes.azure.rules import Site

_SPOT = "lowPriorityCores"


def family(size: str) -> str:
    """`standardDCASv5Family` of `Standard_DC2as_v5`."""
    kind, _, version = re.sub(r"^([A-Z]+)\d+", r"\1", size.removeprefix("Standard_")).rpartition("_")
    return f"standard{kind.upper().replace('_', '')}{version}Family"


@dataclass
class Quota:
    """Limits by Azure's name of the usage; what is not named has `other`."""

    site: Site
    limits: dict[str, int] = field(default_factory=dict)
    other: int = 1000

    def refuse(self, body: dict[str, Any], living: Iterable[dict[str, Any]]) -> None:
        """Raise `Refused` when one more VM would be too much."""
        used = self._used(living)
        for name, count in self._used([body]).items():
            if used.get(name, 0) + count > self._limit(name):
                words = f"Operation could not be completed as it results in exceeding approved {name} quota."
                raise Refused("OperationNotAllowed", words, status=409)

    def usages(self, living: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """As Azure lists them."""
        used = self._used(living)
        names = ["cores", _SPOT, *sorted({family(one) for one in self.site.sizes})]
        return [
            {
                "unit": "Count",
                "currentValue": used.get(name, 0),
                "limit": self._limit(name),
                "name": {"value": name, "localizedValue": name},
            }
            for name in names
        ]

    def _limit(self, name: str) -> int:
        return self.limits.get(name, self.other)

    def _used(self, bodies: Iterable[dict[str, Any]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in bodies:
            name, size = self.site.size(one["properties"]["hardwareProfile"]["vmSize"])
            names = (_SPOT,) if one["properties"].get("priority") == "Spot" else ("cores", family(name))
            for usage in names:
                found[usage] = found.get(usage, 0) + size.vcpus
        return found
