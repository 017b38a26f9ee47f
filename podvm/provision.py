"""What `process-user-data` does: user data and initdata become the files that the guest's services wait for.

User data comes from an untrusted host, and only initdata is measured. So only listed paths are written, and the
attestation files (`aa.toml`, `cdh.toml`) are taken from user data only when the image's owner says so.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caa.errors import CaaError, StateError
from caa.userdata import initdata, paths
from caa.userdata.cloudconfig import File
from podvm import cloudconfig
from podvm.clouds.contract import Source

_log = logging.getLogger(__name__)

_ATTESTATION = frozenset({paths.ATTESTATION_AGENT, paths.DATA_HUB})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How to provision. `root` is put before every path (tests); `unmeasured_attestation` trusts the host's files."""

    root: Path = Path("/")
    unmeasured_attestation: bool = False

    def place(self, path: str) -> Path:
        """Where a guest path is."""
        return self.root / path.lstrip("/")


def provision(sources: Sequence[Source], rules: Rules) -> None:
    """Fetch, write what is allowed, unpack initdata, write its digest. Without any source only initdata is handled.

    That is no error: an image with cloud-init has the files already. Raises `InvalidInput`, `InitdataError` or
    `StateError`; nothing may start after an error.
    """
    source = next((one for one in sources if one.present()), None)
    if source is None:
        _log.info("no source of user data, using the files that are there")
    else:
        _log.info("user data from %s", source.name)
        write_files(cloudconfig.parse(source.fetch()), rules)
    unpack_initdata(rules)


def write_files(files: Iterable[File], rules: Rules) -> None:
    """Write the allowed files, skip the others with a line in the log."""
    for file in files:
        if file.path not in paths.FROM_USER_DATA:
            _log.warning("skipped %r: not a path that user data may write", file.path)
        elif file.path in _ATTESTATION and not rules.unmeasured_attestation:
            _log.warning("skipped %s: user data is not measured, put it into initdata", file.path)
        else:
            _write(rules.place(file.path), file.content)
            _log.info("wrote %s (%d bytes)", file.path, len(file.content))


def unpack_initdata(rules: Rules) -> None:
    """Write the files in `/run/peerpod/initdata` and its digest; a dummy stands in when there is no initdata.

    The dummy is the reference's: its digest is a constant that verifiers know, and its empty `aa.toml` is what the
    attestation agent waits for.
    """
    encoded = _read(rules.place(paths.INITDATA))
    text = initdata.DUMMY if encoded is None else initdata.decode(encoded, paths.INITDATA)
    found = initdata.parse(text, paths.INITDATA)
    for name, content in found.data.items():
        path = f"{paths.DIRECTORY}/{name}"
        if path not in paths.FROM_INITDATA:
            _log.warning("skipped %r of initdata: not a file that initdata may hold", name[:80])
        elif encoded is not None or not rules.place(path).exists():
            _write(rules.place(path), content)
            _log.info("wrote %s from %s", path, "initdata" if encoded is not None else "the dummy initdata")
    _write(rules.place(paths.INITDATA_DIGEST), found.digest)
    _log.info("initdata digest %s:%s", found.algorithm, found.digest)


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{file} cannot be read: {type(error).__name__}") from error


def _write(file: Path, content: str) -> None:
    """Appear whole, mode 0600, parents 0755: services wait for these files to exist (`PathExists`)."""
    new = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", newline="") as out:
            out.write(content)
        new.replace(file)
    except OSError as error:
        raise StateError(f"{file} cannot be written: {error.strerror}") from error


def run(sources: Sequence[Source], rules: Rules) -> int:
    """`process-user-data` as a command: 0, or 1 after a line that says what is wrong."""
    try:
        provision(sources, rules)
    except CaaError as error:
        _log.error("%s", error)  # the text says it all; a stack would show user data
        return 1
    return 0
