"""How an image gets into each cloud: reads `publish.toml` and fills in names. Pure but for that file."""

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caa.errors import ConfigError

_TABLE = Path(__file__).with_name("publish.toml")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PLACE = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Way:
    """A provider's way in: the format of the file, and commands with `{name}`, `{file}` and other `{places}`."""

    form: str
    commands: tuple[str, ...]

    @property
    def places(self) -> frozenset[str]:
        """What the caller may fill in."""
        return frozenset(place for text in self.commands for place in _PLACE.findall(text)) - {"name", "file"}


def ways() -> Mapping[str, Way]:
    """Every provider's."""
    table = tomllib.loads(_TABLE.read_text())
    return {name: Way(row["format"], tuple(row["commands"])) for name, row in table.items()}


def way(provider: str) -> Way:
    """One provider's; raises `ConfigError` when there is none."""
    known = ways()
    if provider not in known:
        raise ConfigError(f"there is no way to publish to {provider!r}: {', '.join(known)}")
    return known[provider]


def commands(provider: str, name: str, *, file: str, places: Mapping[str, str]) -> Sequence[str]:
    """The commands in their order; a place that is not given stays as `<place>` for the reader to fill in.

    Raises `ConfigError` for an unknown provider or place, or a name that not every cloud takes.
    """
    found = way(provider)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no image name: 1 to 63 of a-z, 0-9 and '-', not '-' at the ends")
    if unknown := sorted(set(places) - found.places):
        raise ConfigError(f"{provider} has no place {unknown[0]!r}, but {', '.join(sorted(found.places))}")
    values = {"name": name, "file": file, **places}
    quoted = {key: shlex.quote(value) for key, value in values.items()}
    return [_PLACE.sub(lambda match: quoted.get(match[1], f"<{match[1]}>"), text) for text in found.commands]
