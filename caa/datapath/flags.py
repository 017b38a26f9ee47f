"""Command-line flags of the data path's processes, which have no room for `argparse` (1.6 MB). Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class FlagError(Exception):
    """A flag that is unknown, or has no value or a bad one; the text is for the user."""


class Flags:
    """The values of flags by name, without dashes. Each has the default's type: str, bool, int or float."""

    __slots__ = ("_values",)

    def __init__(self, defaults: Mapping[str, str | bool | int | float], args: Sequence[str]) -> None:
        """Accepts `-name value`, `-name=value` and both with two dashes, as Go's flag package does.

        A bool is set by its name alone. Raises `FlagError`.
        """
        self._values = dict(defaults)
        rest = list(args)
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            key = name.lstrip("-")
            if key not in defaults or not name.startswith("-"):
                raise FlagError(f"unknown flag {name!r}; known are {', '.join('-' + known for known in defaults)}")
            if isinstance(defaults[key], bool):
                self._values[key] = _truth(name, value) if equals else True
                continue
            if not equals:
                if not rest:
                    raise FlagError(f"{name} needs a value")
                value = rest.pop(0)
            self._values[key] = _number(name, value, default=defaults[key])

    def text(self, name: str) -> str:
        """A flag as text."""
        return str(self._values[name])

    def number(self, name: str) -> float:
        """A flag as a number."""
        return float(self._values[name])

    def given(self, name: str) -> bool:
        """Whether a bool is set."""
        return bool(self._values[name])


def _truth(name: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise FlagError(f"{name}={value}: true or false is allowed")


def _number(name: str, value: str, *, default: object) -> str | int | float:
    if not isinstance(default, int | float):
        return value
    try:
        number = type(default)(value)
    except ValueError:
        raise FlagError(f"{name} {value}: a number is needed") from None
    if not 0 < number < 1e9:
        raise FlagError(f"{name} {value}: a number above 0 is needed")
    return number
