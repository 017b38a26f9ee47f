"""The pinned inputs of an image: which there are, and the files behind them, each compared with its digest."""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from caa.errors import ConfigError, Unavailable

AGENT = "kata-agent"
HUB = "confidential-data-hub"
PAUSE = "pause-bundle"
NAMES = (AGENT, "attestation-agent", HUB, "api-server-rest", PAUSE)
_KEYS = frozenset({"name", "source", "sha256", "architecture", "file", "member"})
_ZSTD = b"\x28\xb5\x2f\xfd"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARTEFACT = re.compile(r"oci:[^@\s]+@sha256:[0-9a-f]{64}")
_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One row of `inputs.toml`. `architecture` is "" when the file serves every one; paths start from `folder`.

    `file` is the one of an artefact's files that counts, "" for its only one. `member` is the program's path in an
    archive, "" when the file is the program.
    """

    name: str
    source: str
    sha256: str
    architecture: str = ""
    file: str = ""
    member: str = ""
    folder: Path = Path()


def read(file: Path) -> tuple[Input, ...]:
    """The rows of a file, whose paths start where it is. Raises `ConfigError`."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--inputs {file} cannot be read: {error}") from error
    return tuple(replace(row, folder=file.parent) for row in parse(text, str(file)))


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
    if not row.get("source", "").startswith(("path:", "https://", "oci:")):
        raise ConfigError(f"{where} ({row['name']}): source has to begin with path:, https:// or oci:")
    if row["source"].startswith("oci:") and not _ARTEFACT.fullmatch(row["source"]):
        raise ConfigError(
            f"{where} ({row['name']}) is not pinned: the artefact needs its digest, as in NAME@sha256:..."
        )
    return Input(**row)


def _arrive(row: Input, folder: Path) -> Path:
    kind, _, rest = row.source.partition(":")
    try:
        if kind == "path":
            shutil.copyfile(row.folder / rest, folder / "file")
            return folder / "file"
        return _from_registry(rest, folder, file=row.file) if kind == "oci" else _download(row.source, folder)
    except OSError as error:
        raise Unavailable(f"{row.name} cannot be had from {row.source}: {error}") from error


def _download(url: str, folder: Path) -> Path:
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer, (folder / "file").open("wb") as out:  # noqa: S310
        shutil.copyfileobj(answer, out)
    return folder / "file"


def _from_registry(reference: str, folder: Path, *, file: str) -> Path:
    """Pull with `oras`, which knows registries and their logins; the artefact has to hold `file`, or one file."""
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
    files = [one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()]
    wanted = [one for one in files if file in ("", str(one.relative_to(folder)))]
    if len(wanted) != 1:
        names = ", ".join(sorted(str(one.relative_to(folder)) for one in files))
        raise ConfigError(f"{reference} holds {names or 'no file'}: say with file which of them it is")
    return wanted[0]


def place(row: Input, arrived: Path, *, to: Path) -> None:
    """Put what a row names below `to`, the image's root. Raises `ConfigError` when the archive is not as it says."""
    if row.name == PAUSE:
        with _archive(arrived, row) as bundle:
            bundle.extractall(to / "pause_bundle", filter="tar")
        return
    program = to / "usr/local/bin" / row.name
    program.parent.mkdir(parents=True, exist_ok=True)
    if row.member:
        _extract(row, arrived, to=program)
    else:
        shutil.copyfile(arrived, program)
    if program.read_bytes()[:2] not in (b"\x7fE", b"#!"):
        raise ConfigError(f"{row.name} is no program: name its path in the archive with member")
    program.chmod(0o755)


def _extract(row: Input, archive: Path, *, to: Path) -> None:
    with _archive(archive, row) as opened:
        names = {name.removeprefix("./"): name for name in opened.getnames()}
        found = names.get(row.member.removeprefix("./"))
        content = opened.extractfile(found) if found is not None else None
        if content is None:
            raise ConfigError(f"{row.name}: the archive has no file {row.member!r}, but {', '.join(sorted(names)[:9])}")
        with to.open("wb") as out:
            shutil.copyfileobj(content, out)


@contextmanager
def _archive(file: Path, row: Input) -> Iterator[tarfile.TarFile]:
    """A tar archive, plain or packed by gzip, xz or zstd (which needs that program)."""
    with file.open("rb") as opened:
        packed = opened.read(4) == _ZSTD
    try:
        with TemporaryFile() as plain:
            if packed:
                subprocess.run(["zstd", "-dc", str(file)], stdout=plain, check=True, timeout=_SECONDS)
                plain.seek(0)
            with tarfile.open(fileobj=plain) if packed else tarfile.open(file) as archive:
                yield archive
    except FileNotFoundError:
        raise ConfigError(f"{row.name}: the program zstd is missing: apt-get install zstd") from None
    except (tarfile.TarError, OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{row.name} is no tar archive (plain, gzip, xz or zstd): {error}") from error


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
