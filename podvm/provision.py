"""What `process-user-data` does: user data and initdata become the files that the guest's services wait for.

User data comes from an untrusted host, and only initdata is measured. So only listed paths are written, and the
attestation files (`aa.toml`, `cdh.toml`) are taken from user data only when the image's owner says so. They are written
last, after PCR 8 is extended: the services that wait for them start from a measured state or not at all.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError, DeadlineExceeded, StateError, Unavailable
from caa.userdata import initdata, paths
from caa.userdata.cloudconfig import File
from caa.userdata.initdata import Initdata
from podvm import cloudconfig, measure
from podvm.clock import Clock
from podvm.clouds.contract import Source
from podvm.measure import Tpm

_log = logging.getLogger(__name__)

FETCH_SECONDS = 180.0  # the reference's flag says so, its retry library gives up after 50 s
_DRIVE_SECONDS = 10.0  # for a disk that the kernel still has to find
_LOOK_PAUSE = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0  # between two tries; doubled each time
_ATTESTATION = frozenset({paths.ATTESTATION_AGENT, paths.DATA_HUB})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How to provision. `root` is put before every path (tests); `unmeasured_attestation` trusts the host's files.

    `fetch_seconds` bounds the fetching as a whole; `source` names the one to use, "" chooses by the machine.
    """

    root: Path = Path("/")
    unmeasured_attestation: bool = False
    source: str = ""
    fetch_seconds: float = FETCH_SECONDS
    tpm: Tpm = field(default_factory=Tpm)
    clock: Clock = field(default_factory=Clock)

    def place(self, path: str) -> Path:
        """Where a guest path is."""
        return self.root / path.lstrip("/")


def provision(sources: Sequence[Source], rules: Rules) -> None:
    """Fetch, write what is allowed, measure initdata, unpack it. Without any source only initdata is handled.

    That is no error: an image with cloud-init has the files already. Raises `InvalidInput`, `InitdataError`,
    `DeadlineExceeded` or `StateError`; nothing may start after an error.
    """
    source = choose(sources, rules)
    files: list[File] = []
    if source is None:
        _log.info("no source of user data, using the files that are there")
    else:
        files = cloudconfig.parse(fetch(source, rules))
        _log.info("user data from %s", source.name)
    allowed = [file for file in files if _is_allowed(file, rules)]
    write_files((file for file in allowed if file.path not in _ATTESTATION), rules)
    found, own = read_initdata(rules)
    _write(rules.place(paths.INITDATA_DIGEST), found.digest)
    _log.info("initdata digest %s:%s", found.algorithm, found.digest)
    measure.extend(found.digest, rules.tpm, clock=rules.clock)
    write_files((file for file in allowed if file.path in _ATTESTATION), rules)
    unpack(found, rules, own=own)


def choose(sources: Sequence[Source], rules: Rules) -> Source | None:
    """The source to use. A machine that shows none and has no files yet is given 10 s to find its config drive.

    Raises `StateError` for the name of an unknown source.
    """
    if rules.source:
        named = [one for one in sources if one.name == rules.source]
        if not named:
            raise StateError(f"-source {rules.source}: known are {', '.join(one.name for one in sources)}")
        return named[0]
    end = rules.clock.now() + (_DRIVE_SECONDS if sources and not rules.place(paths.FORWARDER).exists() else 0.0)
    while True:
        found = next((one for one in sources if one.present()), None)
        if found is not None or rules.clock.now() >= end:
            return found
        rules.clock.sleep(_LOOK_PAUSE)


def fetch(source: Source, rules: Rules) -> bytes:
    """Try until the source answers. Raises `DeadlineExceeded` with the last reason, `InvalidInput` at once."""
    clock, pause = rules.clock, _FIRST_PAUSE
    end = clock.now() + rules.fetch_seconds
    while True:
        try:
            return source.fetch(max(end - clock.now(), 0.1))
        except Unavailable as error:
            if clock.now() + pause >= end:
                raise DeadlineExceeded(f"no user data within {rules.fetch_seconds:g} s: {error}") from error
            _log.warning("%s; trying again", error)
        clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _is_allowed(file: File, rules: Rules) -> bool:
    """Whether user data may bring the file; what is left out gets a line in the log."""
    if file.path not in paths.FROM_USER_DATA:
        _log.warning("skipped %r: not a path that user data may write", file.path)
        return False
    if file.path in _ATTESTATION and not rules.unmeasured_attestation:
        _log.warning("skipped %s: user data is not measured, put it into initdata", file.path)
        return False
    return True


def write_files(files: Iterable[File], rules: Rules) -> None:
    """Write the files."""
    for file in files:
        _write(rules.place(file.path), file.content)
        _log.info("wrote %s (%d bytes)", file.path, len(file.content))


def read_initdata(rules: Rules) -> tuple[Initdata, bool]:
    """The initdata in `/run/peerpod/initdata`, and True; a dummy and False when there is none.

    The dummy is the reference's: its digest is a constant that verifiers know, and its empty `aa.toml` is what the
    attestation agent waits for.
    """
    encoded = _read(rules.place(paths.INITDATA))
    text = initdata.DUMMY if encoded is None else initdata.decode(encoded, paths.INITDATA)
    return initdata.parse(text, paths.INITDATA), encoded is not None


def unpack(found: Initdata, rules: Rules, *, own: bool) -> None:
    """Write the files that initdata holds; the dummy's (not `own`) only where there are none."""
    for name, content in found.data.items():
        path = f"{paths.DIRECTORY}/{name}"
        if path not in paths.FROM_INITDATA:
            _log.warning("skipped %r of initdata: not a file that initdata may hold", name[:80])
        elif own or not rules.place(path).exists():
            _write(rules.place(path), content)
            _log.info("wrote %s from %s", path, "initdata" if own else "the dummy initdata")


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
