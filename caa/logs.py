"""Logging for every long-running command: one set-up, one context per sandbox, and what must never be written."""

import logging
import os
import re
import select
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, TextIO, cast

import structlog
from structlog.typing import Processor

REDACTED = "**********"
LEVELS = ("debug", "info", "warning", "error")
_SHORTEST_SECRET = 6  # a shorter one would blank out ordinary words

_SECRET_KEY = re.compile(
    r"(^|[_.-])(passwo?r?d|secret|token|credentials?|authorization|auth|initdata|policy|user[_-]?data|annotations|key[_-]pem"
    r"|(private|api|access|secret|server|tls|client)[_-]key)$",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)


class Lossy:
    """A text stream that loses lines instead of waiting or failing: a log may not hold up or end the node.

    A pipe nobody reads, a reader that is gone and a full disk all cost the line, and nothing else.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._ready = select.poll()
        if self._fd is not None:
            self._ready.register(self._fd, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write whole or in part, or not at all; returns the length of the text all the same."""
        try:
            if self._fd is None:
                self._stream.write(text)
            else:
                self._to_descriptor(self._fd, text.encode(errors="replace"))
        except (OSError, ValueError):  # ValueError: the stream is closed
            pass
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def _to_descriptor(self, fd: int, data: bytes) -> None:
        """A pipe that is ready takes PIPE_BUF bytes without blocking."""
        for at in range(0, len(data), select.PIPE_BUF):
            if self._ready.poll(0) != [(fd, select.POLLOUT)]:
                return
            os.write(fd, data[at : at + select.PIPE_BUF])


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return None


def configure(level: str, style: str, *, secrets: Iterable[str] = (), stream: TextIO = sys.stderr) -> None:
    """Set up structlog, and the standard library's loggers of other people's libraries, to write to `stream`.

    `level` is one of `LEVELS`; `style` is "json" (one object a line) or "console". The texts in `secrets` are blanked
    out wherever they occur, besides what `Redaction` finds by itself. Libraries are heard from "warning" on.
    """
    redact = Redaction(secrets)
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = [structlog.processors.format_exc_info, redact, _renderer(style, stream)]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, Lossy(stream))),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
    )
    handler = logging.StreamHandler(Lossy(stream))
    handler.setFormatter(formatter)
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[handler], force=True)


def context(*, sandbox: str = "", pod: str = "", instance: str = "") -> AbstractContextManager[None]:
    """Put the names that are not "" on every line written inside the block, and in the tasks it starts."""
    names = {"sandbox": sandbox, "pod": pod, "instance": instance}
    return structlog.contextvars.bound_contextvars(**{key: value for key, value in names.items() if value})


class Redaction:
    """A processor that blanks out secrets: by the field's name, by what a text looks like, and known values.

    Bytes are never shown, only their number.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({text for text in secrets if len(text) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: self.field(key, value) for key, value in event.items()}

    def field(self, key: object, value: Any) -> Any:
        """The value of the field `key` as it may be written."""
        return REDACTED if value and _SECRET_KEY.search(str(key)) else self.value(value)

    def value(self, value: Any) -> Any:
        """A value without the secrets in it; other objects become text."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if isinstance(value, Mapping):
            return {str(key): self.field(key, item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(str(value))

    def text(self, text: str) -> str:
        """The text with private keys and known secrets blanked out."""
        text = _PRIVATE_KEY.sub(REDACTED, text)
        return self._known.sub(REDACTED, text) if self._known else text


def _renderer(style: str, stream: TextIO) -> Processor:
    if style == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )
