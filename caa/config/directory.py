"""The settings directory (CAA_CONFIG_DIR): one file a key, as Kubernetes mounts a ConfigMap or Secret."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from caa.errors import ConfigError

_KEY = re.compile(r"[A-Z][A-Z0-9_]*")
_LONGEST = 2 << 20  # bytes; a ConfigMap holds 1 MiB in all

Stamp = tuple[tuple[str, int, int, int], ...]


def read(folder: Path | None) -> Mapping[str, str]:
    """The text of every file whose name is a key, by name; other files are left alone, no folder has none.

    Raises `ConfigError` naming what cannot be read.
    """
    return {path.name: _text(path) for path in _files(folder)}


def stamp(folder: Path | None) -> Stamp:
    """Something that differs when a file has changed, come or gone. Raises `ConfigError`."""
    found = []
    for path in _files(folder):
        try:
            known = path.stat()
        except FileNotFoundError:  # Kubernetes exchanges all of them at once
            continue
        found.append((path.name, known.st_ino, known.st_mtime_ns, known.st_size))
    return tuple(found)


def _files(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        return
    try:
        found = sorted(path for path in folder.iterdir() if _KEY.fullmatch(path.name) and path.is_file())
    except OSError as error:
        raise ConfigError(f"CAA_CONFIG_DIR: {folder} cannot be read: {error.strerror}") from error
    yield from found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ConfigError(f"CAA_CONFIG_DIR: {path} is longer than {_LONGEST} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"CAA_CONFIG_DIR: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"CAA_CONFIG_DIR: {path} is not UTF-8 text") from error
