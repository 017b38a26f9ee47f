"""PE files as far as measurements need them: sections, and the Authenticode digest. Pure.

Format: Microsoft's PE specification; the digest as in "Windows Authenticode Portable Executable Signature Format".
"""

import hashlib
import struct
from dataclasses import dataclass

from caa.errors import InvalidInput

_PE32_PLUS = 0x20B
_SECTION_SIZE = 40
_CERTIFICATES = 4  # index of the data directory


@dataclass(frozen=True, slots=True)
class Section:
    """A section: where its bytes are, and how many of them are its content (the rest is padding)."""

    name: str
    offset: int
    stored: int
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """A parsed PE file; `directory` is the offset of the certificates' data directory, 0 when there is none."""

    data: bytes
    sections: tuple[Section, ...]
    checksum: int
    directory: int
    headers: int

    @property
    def is_signed(self) -> bool:
        """Whether it carries certificates for Secure Boot; whose they are, and if they are good, firmware decides."""
        return self.directory != 0 and struct.unpack_from("<4xI", self.data, self.directory)[0] > 0

    def section(self, name: str) -> bytes | None:
        """The content of a section, None when there is none of that name."""
        for one in self.sections:
            if one.name == name:
                return self.data[one.offset : one.offset + min(one.size, one.stored)]
        return None


def parse(data: bytes) -> Image:
    """Read the headers; raises `InvalidInput` when it is no PE file or cut short."""
    try:
        return _parse(data)
    except struct.error as error:
        raise InvalidInput(f"a PE file ends in its headers: {error}") from error


def _parse(data: bytes) -> Image:
    start = struct.unpack_from("<I", data, 0x3C)[0] if data[:2] == b"MZ" else 0
    if data[start : start + 4] != b"PE\0\0":
        raise InvalidInput("not a PE file: a UKI or an EFI kernel begins with MZ and has a PE header")
    count, optional_size = struct.unpack_from("<H12xH", data, start + 6)
    optional = start + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    (headers,) = struct.unpack_from("<I", data, optional + 60)
    directories = optional + (112 if magic == _PE32_PLUS else 96)
    (known,) = struct.unpack_from("<I", data, directories - 4)
    table = optional + optional_size
    return Image(
        data,
        tuple(_section(data, table + _SECTION_SIZE * number) for number in range(count)),
        checksum=optional + 64,
        directory=directories + 8 * _CERTIFICATES if known > _CERTIFICATES else 0,
        headers=headers,
    )


def _section(data: bytes, at: int) -> Section:
    name, size, _address, stored, offset = struct.unpack_from("<8sIIII", data, at)
    return Section(name.rstrip(b"\0").decode("ascii", "replace"), offset, stored, size)


def authenticode(image: Image) -> bytes:
    """The SHA-256 that firmware measures: everything but checksum, certificate directory and certificates."""
    data, digest = image.data, hashlib.sha256()
    digest.update(data[: image.checksum])
    if image.directory:
        digest.update(data[image.checksum + 4 : image.directory])
        digest.update(data[image.directory + 8 : image.headers])
    else:
        digest.update(data[image.checksum + 4 : image.headers])
    end = image.headers
    for one in sorted(image.sections, key=lambda section: section.offset):
        if one.stored:
            digest.update(data[one.offset : one.offset + one.stored])
            end += one.stored
    certificates = struct.unpack_from("<4xI", data, image.directory)[0] if image.directory else 0
    digest.update(data[end : len(data) - certificates])
    return digest.digest()
