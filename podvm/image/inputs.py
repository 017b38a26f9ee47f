"""The pinned inputs of an image: which there are, and the files behind them, each compared with its digest."""

import hashlib
import re
import shutil
import subprocess
import tomllib
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from caa.errors import ConfigError, Unavailable

AGENT = "kata-agent"
HUB = "confidential-data-hub"
PAUSE = "pause-bundle"
NAMES = (AGENT, "attestation-agent", HUB, "api-server-rest", PAUSE)
_KEYS = frozenset({"name", "source", "sha256", "architecture"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One row of `inputs.toml`. `architecture` is "" when the file serves every one."""

    name: str
    source: str
    sha256: str
    architecture: str = ""


def parse(text: str, source: str = "inputs.toml") -> tuple[Input, ...]:
    """Read the rows; raises `ConfigError` that names row and key. A row without a digest is refused."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from error
    if unknown := set(document) - {"input"}:
        raise ConfigError(f"{source}: unknown key {sorted(unknown)[0]!r}, only [[input]] tables are allowed")
    rows = tuple(_row(number, row, source=source) for number, row in enumerate(document.get("input", []), 1))
    keys = [(row.name, row.architecture) for row in rows]
    if twice := [name for name, architecture in keys if keys.count((name, architecture)) > 1]:
        raise ConfigError(f"{source}: {twice[0]} is there twice for the same architecture")
    return rows


def chosen(rows: Sequence[Input], architecture: str) -> tuple[Input, ...]:
    """The rows for an architecture."""
    return tuple(row for row in rows if row.architecture in ("", architecture))


def fetch(row: Input, cache: Path) -> Path:
    """The file behind a row, in `cache` under its digest. Raises `ConfigError` when the digest is another."""
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / row.sha256
    if place.exists() and _digest(place) == row.sha256:
        return place
    with TemporaryDirectory(prefix="podvm-input-", dir=cache) as folder:
        arrived = _arrive(row, Path(folder))
        if (found := _digest(arrived)) != row.sha256:
            raise ConfigError(f"{row.name} from {row.source} has the SHA-256 {found}, inputs.toml says {row.sha256}")
        arrived.replace(place)
    return place


def _row(number: int, row: Any, *, source: str) -> Input:
    where = f"{source}: input {number}"
    if not isinstance(row, dict) or not all(isinstance(value, str) for value in row.values()):
        raise ConfigError(f"{where}: every value has to be text")
    if unknown := set(row) - _KEYS:
        raise ConfigError(f"{where}: unknown key {sorted(unknown)[0]!r}, known are {', '.join(sorted(_KEYS))}")
    if row.get("name") not in NAMES:
        raise ConfigError(f"{where}: name has to be one of {', '.join(NAMES)}")
    if not _DIGEST.fullmatch(row.get("sha256", "")):
        raise ConfigError(f"{where} ({row['name']}) is not pinned: give sha256, the 64 hexadecimal digits of the file")
    if row.get("source", "").partition(":")[0] not in ("path", "https", "oci"):
        raise ConfigError(f"{where} ({row['name']}): source has to begin with path:, https: or oci:")
    if row["source"].startswith("oci:") and "@sha256:" not in row["source"]:
        raise ConfigError(
            f"{where} ({row['name']}) is not pinned: the artefact needs its digest, as in NAME@sha256:..."
        )
    return Input(**row)


def _arrive(row: Input, folder: Path) -> Path:
    kind, _, rest = row.source.partition(":")
    try:
        if kind == "path":
            shutil.copyfile(rest, folder / "file")
            return folder / "file"
        return _from_registry(rest, folder) if kind == "oci" else _download(row.source, folder)
    except OSError as error:
        raise Unavailable(f"{row.name} cannot be had from {row.source}: {error}") from error


def _download(url: str, folder: Path) -> Path:
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer, (folder / "file").open("wb") as out:  # noqa: S310
        shutil.copyfileobj(answer, out)
    return folder / "file"


def _from_registry(reference: str, folder: Path) -> Path:
    """Pull with `oras`, which knows registries and their logins; the artefact has to hold one file."""
    if shutil.which("oras") is None:
        raise ConfigError(f"oci:{reference} needs the program oras, or download the file and name it with path:")
    done = subprocess.run(
        ["oras", "pull", "--output", str(folder), reference],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise Unavailable(f"oras cannot pull {reference}: {done.stderr.strip()[-300:]}")
    files = [file for file in folder.rglob("*") if file.is_file()]
    if len(files) != 1:
        raise ConfigError(f"{reference} holds {len(files)} files, one is needed")
    return files[0]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
