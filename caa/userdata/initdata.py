"""Initdata: validate the TOML, compress it for the way to the guest, unpack it there, take its digest. Pure."""

import base64
import binascii
import gzip
import hashlib
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from caa.errors import InitdataError
from caa.model.instance import InitdataDigest
from caa.userdata.toml_guard import refuse_hostile

ANNOTATION = "io.katacontainers.config.hypervisor.cc_init_data"
SETTING = "INITDATA"
ALGORITHMS = ("sha256", "sha384", "sha512")
VERSION = "0.1.0"
MAX_PLAIN = 1024 * 1024  # bytes of TOML
MAX_ENCODED = 1024 * 1024  # characters of base64; no cloud takes more user data than 256 KiB

# What the guest measures when a pod brings none: the reference's literal, whose sha256 verifiers know (podvm.md 2.1).
DUMMY = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = '''\n'''"
DUMMY_DIGEST = "adb48cc14fea9403d3d51f3b5f5068fd4d80445a14e94f1b3d5dbabaad66478d"


@dataclass(frozen=True, slots=True)
class Initdata:
    """Validated initdata. `digest` is over the TOML text, in hex; `data` maps file names to contents."""

    text: str = field(repr=False)
    algorithm: str
    digest: str
    data: Mapping[str, str] = field(repr=False)


def parse(text: str, source: str = ANNOTATION) -> Initdata:
    """Check plain TOML: size, syntax, algorithm, version, and a `[data]` table of strings.

    `source` is the annotation or setting that the text came from. Raises `InitdataError`, which names it and shows
    nothing of the text, since it may hold a policy.
    """
    document = _toml(text, source)
    algorithm = document.get("algorithm")
    if algorithm not in ALGORITHMS:
        raise _error(source, f"algorithm is {_word(algorithm)}, allowed are {', '.join(ALGORITHMS)}")
    if document.get("version") != VERSION:
        raise _error(source, f"version is {_word(document.get('version'))}, allowed is {VERSION!r}")
    data = document.get("data")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise _error(source, "it needs a table [data] whose values are all strings")
    digest = hashlib.new(algorithm, text.encode()).hexdigest()
    return Initdata(text, algorithm, digest, MappingProxyType(data))


def digest_in_guest(text: str, source: str = ANNOTATION) -> InitdataDigest:
    """The digest of what the guest will have: of `text`, or of the dummy where it is "". Raises `InitdataError`."""
    parsed = parse(text or DUMMY, source)
    return InitdataDigest(algorithm=parsed.algorithm, value=bytes.fromhex(parsed.digest))


def encode(text: str) -> str:
    """TOML text to gzip to standard base64, the same output for the same input (no time stamp)."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def decode(encoded: str, source: str = SETTING) -> str:
    """The TOML text of what `encode`, `gzip | base64` or a shim made; not yet validated.

    Never holds more than `MAX_PLAIN` bytes, whatever the input expands to. Raises `InitdataError`.
    """
    if len(encoded) > MAX_ENCODED:
        raise _error(source, f"it has {len(encoded)} characters, allowed are {MAX_ENCODED}")
    try:
        packed = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _error(source, "it is not standard base64") from None
    try:
        return _gunzip(packed, source).decode()
    except UnicodeDecodeError:
        raise _error(source, "the unpacked text is not UTF-8") from None


def _gunzip(packed: bytes, source: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(packed, MAX_PLAIN + 1)
    except zlib.error:
        raise _error(source, "it is base64, but not of gzip data") from None
    if len(plain) > MAX_PLAIN:
        raise _error(source, f"it unpacks to more than {MAX_PLAIN} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise _error(source, "its gzip data is cut off, or followed by something else")
    return plain


def _toml(text: str, source: str) -> dict[str, Any]:
    if len(text) > MAX_PLAIN or len(text.encode(errors="replace")) > MAX_PLAIN:
        raise _error(source, f"it has {len(text)} characters, allowed are {MAX_PLAIN} bytes of TOML")
    try:
        text.encode()
        refuse_hostile(text)
        return tomllib.loads(text)
    except UnicodeEncodeError:
        raise _error(source, "it is not Unicode text") from None
    except tomllib.TOMLDecodeError as error:
        raise _error(source, f"it is not TOML{_place(error)}") from None
    except RecursionError:
        raise _error(source, "it is not TOML that can be read: the nesting is too deep") from None
    except ValueError as error:
        raise _error(source, f"it is not TOML that can be read: {error}") from None


def _place(error: tomllib.TOMLDecodeError) -> str:
    """The end of tomllib's message, "(at line 1, column 7)"; what stands before it may quote the text."""
    _, bracket, place = str(error).rpartition("(at ")
    return f" (at {place}" if bracket else ""


def _word(value: object) -> str:
    """A value from the text for a message: only short words are shown."""
    if value is None:
        return "missing"
    return (
        repr(value) if isinstance(value, str) and len(value) <= 32 else f"a {type(value).__name__} that is no such word"
    )


def _error(source: str, problem: str) -> InitdataError:
    return InitdataError(f"initdata from {source} cannot be used: {problem}")
