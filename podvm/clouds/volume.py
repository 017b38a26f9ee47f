"""A disk as bytes at places, for the file system readers: hostile until proven otherwise, so every read is bounded."""

import struct
from typing import Any, BinaryIO

FILE_LIMIT = 16 << 20  # bytes of one file; the largest cloud limit is 256 KiB
FOLDER_LIMIT = 1 << 20  # bytes of one folder; a config drive's has some hundred


class VolumeError(Exception):
    """The disk holds no such file system, or a broken one; the text says which."""


class Volume:
    """An open disk or image file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, at: int, size: int) -> bytes:
        """Exactly `size` bytes from `at`. Raises `VolumeError` when the disk ends before, or cannot be read."""
        if size > FILE_LIMIT:
            raise VolumeError(f"more than {FILE_LIMIT} bytes are asked for")
        try:
            self._file.seek(at)
            found = self._file.read(size)
        except (OSError, ValueError, OverflowError) as error:
            raise VolumeError(f"cannot read: {error}") from error
        if len(found) != size:
            raise VolumeError("it points behind its own end")
        return found

    def unpack(self, layout: str, at: int) -> tuple[Any, ...]:
        """The fields of a `struct` layout at a place."""
        return struct.unpack(layout, self.read(at, struct.calcsize(layout)))
