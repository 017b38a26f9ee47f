"""The kinds of settings: text to value and back. Pure functions; each `parse` raises `ValueError` and nothing else."""

import math
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType

from caa.config.setting import Kind

IPNetwork = IPv4Network | IPv6Network

_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
_UNITS = MappingProxyType(
    {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def _same(text: str) -> str:
    return text


def parse_bool(text: str) -> bool:
    """Read `true`, `yes`, `1`, `false`, `no` or `0` in any case."""
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("not a truth value")
    return lowered in _TRUE


def parse_duration(text: str) -> float:
    """Read a Go duration such as `5m`, `1h30m` or `150ms` (Go's `time.ParseDuration`, without signs) as seconds."""
    if text == "0":
        return 0.0
    if len(text) > 64 or not _DURATION.fullmatch(text):
        raise ValueError("not a duration")
    nanoseconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    if nanoseconds >= 2**63:
        raise ValueError("longer than 292 years")
    return nanoseconds / 1e9


def show_duration(seconds: float) -> str:
    """Write seconds as a Go duration in its shortest whole units, down to nanoseconds."""
    rest = round(seconds * 1e9)
    text = ""
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_list(text: str) -> tuple[str, ...]:
    """Split at commas; blanks around items and empty items are dropped."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def parse_tags(text: str) -> Mapping[str, str]:
    """Read `key=value,key=value`; a value may hold `=` and blanks but no comma, a key comes once."""
    tags: dict[str, str] = {}
    for item in parse_list(text):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or key in tags:
            raise ValueError("an item without '=', without a key, or a key that comes twice")
        tags[key] = value
    return MappingProxyType(tags)


def _show_tags(tags: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in tags.items())


def parse_amounts(text: str) -> Mapping[str, float]:
    """Read `key=number,key=number`; the numbers are decimal, finite and not negative."""
    amounts = {key: float(value) for key, value in parse_tags(text).items()}
    if not all(0 <= amount < math.inf for amount in amounts.values()):
        raise ValueError("not an amount")
    return MappingProxyType(amounts)


def _show_items(items: tuple[object, ...]) -> str:
    return ",".join(map(str, items))


def _parse_path(text: str) -> Path | None:
    if "\0" in text or (text and not text.startswith("/")):
        raise ValueError("not an absolute path")
    return Path(text) if text else None


def _parse_directory(text: str) -> Path:
    path = _parse_path(text)
    if path is None:
        raise ValueError("empty")
    return path


STRING: Kind[str] = Kind(name="text", allowed="any text", parse=_same, show=_same)
BOOL: Kind[bool] = Kind(
    name="truth value",
    allowed="true, false, yes, no, 1 or 0",
    parse=parse_bool,
    show=lambda value: "true" if value else "false",
    switch=True,
)
PATH: Kind[Path] = Kind(name="path", allowed="an absolute path", parse=_parse_directory, show=str)
OPTIONAL_PATH: Kind[Path | None] = Kind(
    name="path", allowed="an absolute path, or nothing", parse=_parse_path, show=lambda path: str(path or "")
)
LIST: Kind[tuple[str, ...]] = Kind(name="list", allowed="items separated by commas", parse=parse_list, show=",".join)
TAGS: Kind[Mapping[str, str]] = Kind(
    name="tags", allowed="key=value pairs separated by commas, each key once", parse=parse_tags, show=_show_tags
)
AMOUNTS: Kind[Mapping[str, float]] = Kind(
    name="amounts",
    allowed="key=number pairs separated by commas, each key once",
    parse=parse_amounts,
    show=lambda amounts: ",".join(f"{key}={value:g}" for key, value in amounts.items()),
)
NETWORKS: Kind[tuple[IPNetwork, ...]] = Kind(
    name="networks",
    allowed="networks in CIDR form separated by commas, such as 10.244.0.0/16,fd00:10::/56",
    parse=lambda text: tuple(ip_network(item, strict=False) for item in parse_list(text)),
    show=_show_items,
)


def integer(low: int | None = None, high: int | None = None) -> Kind[int]:
    """A whole number in decimal digits, from `low` to `high`, both included; None is no bound."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError("not a whole number")
        value = int(text)
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError("out of range")
        return value

    bounds = (f" from {low}" if low is not None else "") + (f" to {high}" if high is not None else "")
    return Kind(name="integer", allowed=f"a whole number{bounds}", parse=parse, show=str)


def number(low: float, high: float) -> Kind[float]:
    """A decimal number from `low` to `high`, both included."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError("out of range")
        return value

    return Kind(
        name="number", allowed=f"a number from {low:g} to {high:g}", parse=parse, show=lambda value: f"{value:g}"
    )


def duration(low: float = 0.0) -> Kind[float]:
    """A Go duration of at least `low` seconds; the value is in seconds."""

    def parse(text: str) -> float:
        value = parse_duration(text)
        if value < low:
            raise ValueError("too short")
        return value

    least = f" of at least {show_duration(low)}" if low else ""
    return Kind(
        name="duration", allowed=f'a duration{least} such as "5m", "1h30m" or "150ms"', parse=parse, show=show_duration
    )


def choice(*words: str, empty: bool = False) -> Kind[str]:
    """One of `words`, matched without regard to case and given back as written here; with `empty` also nothing."""
    by_lower = {word.lower(): word for word in words} | ({"": ""} if empty else {})

    def parse(text: str) -> str:
        if text.lower() not in by_lower:
            raise ValueError("not one of the words")
        return by_lower[text.lower()]

    allowed = ", ".join(words[:-1]) + (" or " if words[:-1] else "") + words[-1]
    return Kind(name="choice", allowed=allowed + (", or nothing" if empty else ""), parse=parse, show=_same)


def matching(pattern: str, allowed: str) -> Kind[str]:
    """Text that matches the regular expression `pattern` as a whole; `allowed` says so in words."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError("does not match")
        return text

    return Kind(name="text", allowed=allowed, parse=parse, show=_same)


OPTIONAL_URL = matching(r"(https?://[^\s]+)?", "an http or https URL, or nothing")


def list_of(item: Callable[[str], str], allowed: str) -> Kind[tuple[str, ...]]:
    """A comma-separated list whose items `item` checks and rewrites; it raises `ValueError` on a bad one."""
    return Kind(
        name="list",
        allowed=allowed,
        parse=lambda text: tuple(item(word) for word in parse_list(text)),
        show=",".join,
    )
