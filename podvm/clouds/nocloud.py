"""User data on a config drive: libvirt, BYOM, IBM, smoke tests, and the local provider."""

from pathlib import Path

from caa.errors import InvalidInput

_FILE = Path("/media/cidata/user-data")
_LIMIT = 16 << 20  # bytes; the largest cloud limit is 256 KiB


class NoCloud:
    """The file `user-data` on the mounted drive labelled `cidata`."""

    name = "nocloud"

    def __init__(self, file: Path = _FILE) -> None:
        self._file = file

    def present(self) -> bool:
        """Whether the file is there."""
        return self._file.is_file()

    def fetch(self) -> bytes:
        """The file as it is; a drive needs no encoding."""
        try:
            with self._file.open("rb") as file:
                content = file.read(_LIMIT + 1)
        except OSError as error:
            raise InvalidInput(f"user data {self._file} cannot be read: {error.strerror}") from error
        if len(content) > _LIMIT:
            raise InvalidInput(f"user data {self._file} is larger than {_LIMIT} bytes")
        return content
