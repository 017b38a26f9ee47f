"""Rows and their sources in, typed values out. Precedence: default, directory, non-empty environment, flag."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from caa.config.setting import AnySetting, Setting
from caa.errors import ConfigError

T = TypeVar("T")

REDACTED = "**********"  # ten asterisks, as operators of the reference know it
_SHOWN = 80  # characters of a value in a message; INITDATA alone may have a megabyte


class Origin(StrEnum):
    """Where a value came from."""

    DEFAULT = "default"
    DIRECTORY = "settings directory"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The value of one row and its origin. `repr` hides the value, it may be a secret."""

    row: AnySetting
    value: Any
    origin: Origin

    def __repr__(self) -> str:
        return f"<{self.row.label} from {self.origin}>"

    @property
    def text(self) -> str:
        """The value as text, redacted when secret and shortened when long."""
        return shown(self.row, self.row.kind.show(self.value))


class Settings:
    """The values of a run, by row: `settings[ROW]` or `settings.get(ROW)` has the type of the row's default.

    Asking for a row that was not loaded is a mistake of ours and raises `LookupError`.
    """

    def __init__(self, loaded: Iterable[Loaded]) -> None:
        self._loaded = MappingProxyType({item.row.name: item for item in loaded})

    def __getitem__(self, row: Setting[T]) -> T:
        value: T = self._item(row).value
        return value

    def get(self, row: Setting[T]) -> T:
        """The value of the row, typed as the row's default."""
        return self[row]

    def origin(self, row: AnySetting) -> Origin:
        """Where the value came from."""
        return self._item(row).origin

    def is_set(self, row: AnySetting) -> bool:
        """Whether an operator set it, to whatever value."""
        return self.origin(row) is not Origin.DEFAULT

    def changed(self, items: Iterable[Loaded]) -> "Settings":
        """These settings with `items` in place of those of the same rows."""
        return Settings({**self._loaded, **{item.row.name: item for item in items}}.values())

    def named(self) -> Mapping[str, object]:
        """Every value by its row's name: a plain, read-only mapping."""
        return MappingProxyType({name: item.value for name, item in self._loaded.items()})

    def secrets(self) -> tuple[str, ...]:
        """The texts of all secret values that are set, for the redaction of logs."""
        items = (item for item in self if item.row.secret and item.value)
        return tuple(item.row.kind.show(item.value) for item in items)

    def __iter__(self) -> Iterator[Loaded]:
        return iter(self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    def __contains__(self, row: AnySetting) -> bool:
        return row.name in self._loaded

    def __repr__(self) -> str:
        return f"<Settings of {len(self)} rows>"

    def _item(self, row: AnySetting) -> Loaded:
        if row.name not in self._loaded:
            raise LookupError(f"the setting {row.label} was not among the rows that were loaded")
        return self._loaded[row.name]


@dataclass(frozen=True, slots=True)
class Check:
    """A rule over several rows. `find` returns a sentence that names what is wrong and the remedy, "" when all is well.

    It is asked only when each of `rows` has a legal value, so it never reports what a wrong value caused.
    """

    rows: tuple[AnySetting, ...]
    find: Callable[[Settings], str]


def load(
    rows: Sequence[AnySetting],
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, str] = MappingProxyType({}),
    checks: Sequence[Check] = (),
    files: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Take each row's value from its sources and check everything.

    `environ` and `files` (`caa.config.directory`) are by environment key, `flags` by flag name without dashes; other
    keys of the former are ignored. Blanks around a value are dropped (a Secret often ends with a newline); a value of
    environment or file that is empty then counts as unset, an empty flag does not. Raises one `ConfigError` that
    tells every bad value, missing setting and broken rule.
    """
    _refuse_twins(rows)
    loaded: list[Loaded] = []
    problems: list[str] = []
    for row in rows:
        found = _take(row, _source(row, environ, flags=flags, files=files))
        if isinstance(found, Loaded):
            loaded.append(found)
        else:
            problems.append(found)
    settings = Settings(loaded)
    problems += [
        problem for check in checks if all(row in settings for row in check.rows) and (problem := check.find(settings))
    ]
    if problems:
        raise ConfigError(_report(problems))
    return settings


def shown(row: AnySetting, text: str) -> str:
    """The text of a value as it may be printed: asterisks for a secret, cut when longer than 80 characters."""
    if row.secret and text:
        return REDACTED
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}... ({len(text)} characters)"


def _take(row: AnySetting, source: tuple[str | None, Origin]) -> Loaded | str:
    text, origin = source
    if text is None:
        return f"{row.label} is required and not set: {row.help}" if row.required else _default(row)
    if row.required and not text:
        return f"{row.label} is required, the value is empty: {row.help}"
    try:
        return Loaded(row, row.kind.parse(text), origin)
    except ValueError:
        value = REDACTED if row.secret else repr(shown(row, text))
        return f"{row.label}: {value} from the {origin} is not valid, allowed is {row.kind.allowed}"


def _default(row: AnySetting) -> Loaded:
    return Loaded(row, row.default, Origin.DEFAULT)


def _source(
    row: AnySetting, environ: Mapping[str, str], *, flags: Mapping[str, str], files: Mapping[str, str]
) -> tuple[str | None, Origin]:
    if row.flag and row.flag in flags:
        return flags[row.flag].strip(), Origin.FLAG
    for source, origin in ((environ, Origin.ENVIRONMENT), (files, Origin.DIRECTORY)):
        if row.env and (text := source.get(row.env, "").strip()):
            return text, origin
    return None, Origin.DEFAULT


def _report(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are wrong:\n" + "\n".join(f"  {problem}" for problem in problems)


def _refuse_twins(rows: Sequence[AnySetting]) -> None:
    for of in ("name", "env", "flag"):
        counts = Counter(getattr(row, of) for row in rows if getattr(row, of))
        if twins := [key for key, count in counts.items() if count > 1]:
            raise ValueError(f"two settings share the {of} {twins[0]!r}")
