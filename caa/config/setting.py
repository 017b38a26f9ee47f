"""The row: everything that is known about one setting. No reading, no printing, no values of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """How the text of a setting becomes a value and back.

    `parse` takes text without surrounding blanks and raises `ValueError` on anything but a legal value; `show` is its
    inverse. `allowed` completes the sentence "allowed is ...". `switch` marks kinds whose flag may stand alone.
    """

    name: str
    allowed: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    switch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[T]):
    """One setting. `env` and `flag` are "" where the setting has none; `flag` is written without dashes.

    `default` is a value of the kind, not text. A `required` setting must come from the environment or a flag, and
    not be empty. The value of a `secret` one is never printed. A `live` one takes effect without a restart when its
    file in the settings directory changes.
    """

    name: str
    kind: Kind[T]
    default: T
    help: str
    env: str = ""
    flag: str = ""
    secret: bool = False
    required: bool = False
    live: bool = False

    @property
    def label(self) -> str:
        """How an operator knows it: the environment key, and the flag in brackets."""
        if self.env and self.flag:
            return f"{self.env} (--{self.flag})"
        return self.env or f"--{self.flag}"


AnySetting = Setting[Any]
