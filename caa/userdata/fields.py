"""Typed looks into a JSON object that nobody has checked yet. Pure."""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

from caa.errors import InvalidInput
from caa.model.instance import IPAddress

T = TypeVar("T")

_INTERFACE = re.compile(r"(?!\.{1,2}$)[^/\s:\0]{1,15}")  # what the kernel takes as a name (dev_valid_name)
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


class Fields:
    """An object and where it stands. A missing key and null read as empty, as Go's decoder does.

    Every other surprise raises `InvalidInput`, naming the field, not its content.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._values = values
        self._place = place

    def wrong(self, key: str, allowed: str) -> InvalidInput:
        """The error for a field: `allowed` says what it has to be."""
        return InvalidInput(f"{self._place}: {key!r} has to be {allowed}")

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        items = self._items(key)
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "a list of strings")
        return items

    def number(self, key: str, *, high: int = 2**32 - 1) -> int:
        """A whole number from 0 to `high`; 0 when missing."""
        value = self._values.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise self.wrong(key, f"a whole number from 0 to {high}")
        return value

    def empty(self, key: str) -> bool:
        """Whether the field is missing, null or an empty text."""
        return self._values.get(key) in (None, "")

    def digits(self, key: str) -> bool:
        """Whether the field is a text of digits, which some writers make of a number."""
        value = self._values.get(key)
        return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if not isinstance(value, bool | None):
            raise self.wrong(key, "true or false")
        return bool(value)

    def part(self, key: str) -> "Fields":
        value = self._values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Fields(value, f"{self._place} {key}")

    def parts(self, key: str) -> list["Fields"]:
        items = self._items(key)
        if not all(isinstance(item, dict) for item in items):
            raise self.wrong(key, "a list of objects")
        return [Fields(item, f"{self._place} {key}[{index}]") for index, item in enumerate(items)]

    def value(self, key: str, parse: Callable[[str], T], *, text: str) -> T:
        """What `parse` makes of `text`, the content of the field `key`; its `ValueError` becomes ours."""
        try:
            return parse(text)
        except ValueError:
            raise self.wrong(key, "an IP address or network") from None

    def address(self, key: str) -> IPAddress | None:
        """An IP address; None when empty."""
        text = self.text(key)
        return self.value(key, ip_address, text=text) if text else None

    def interface(self, key: str, *, optional: bool = False) -> str:
        text = self.text(key)
        if not _INTERFACE.fullmatch(text) and not (optional and not text):
            raise self.wrong(key, "an interface name")
        return text

    def mac(self, key: str) -> str:
        text = self.text(key)
        if not _MAC.fullmatch(text):
            raise self.wrong(key, "a hardware address such as 02:00:00:00:00:01")
        return text

    def _items(self, key: str) -> list[Any]:
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value
