"""Logs of the control plane: structured lines on stderr with the sandbox they are about, secrets blotted out."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from caa.config.load import REDACTED

_SHORTEST_SECRET = 4  # a shorter value would blot out ordinary words


class Blotter:
    """A processor that replaces every known secret in every text of a line, nested ones included."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(one for one in secrets if len(one) >= _SHORTEST_SECRET)

    def __call__(self, _logger: Any, _method: str, line: EventDict) -> EventDict:
        return {key: self._blotted(value) for key, value in line.items()} if self._secrets else line

    def _blotted(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, REDACTED)
            return value
        if isinstance(value, (list, tuple)):
            return [self._blotted(item) for item in value]
        if isinstance(value, dict):
            return {key: self._blotted(item) for key, item in value.items()}
        return value


def configure(*, level: str, form: str, secrets: Sequence[str], stream: TextIO = sys.stderr) -> None:
    """Set up structlog, and the standard library's `logging` through it; `form` is "console" or "json"."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Blotter(secrets),
    ]
    last: Processor = structlog.processors.JSONRenderer() if form == "json" else _console(stream)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)


def _console(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
