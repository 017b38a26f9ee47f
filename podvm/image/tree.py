"""A file system as it will be, in memory: files, links, devices by path. Parents appear by themselves."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from caa.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Entry:
    """One inode. `mode` holds type and permissions (stat(2)); `data` is content or link target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


_FOLDER = Entry(stat.S_IFDIR | 0o755)


class Tree:
    """Entries by their path without a leading slash. Owner is root, time is 0, order is by name: always the same."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def folder(self, path: str, mode: int = 0o755) -> None:
        """A folder; its mode counts even when it was there."""
        self._put(path, Entry(stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """A regular file. The same file twice is fine, another content under the same path is not."""
        self._put(path, Entry(stat.S_IFREG | mode, data))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._put(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, number: tuple[int, int]) -> None:
        """A device node with this major and minor number, mode 0600."""
        self._put(path, Entry(stat.S_IFCHR | 0o600, device=number))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every entry, a parent before what is in it."""
        for path in sorted(self._entries, key=lambda one: one.split("/")):
            yield path, self._entries[path]

    def write(self, to: Path) -> None:
        """Make it below the folder `to`, without devices; every time is 0."""
        for path, entry in self.entries():
            place = to / path
            if stat.S_ISDIR(entry.mode):
                place.mkdir(parents=True, exist_ok=True)
            elif stat.S_ISLNK(entry.mode):
                place.symlink_to(entry.data.decode())
            else:
                place.write_bytes(entry.data)
            if not stat.S_ISLNK(entry.mode):
                place.chmod(stat.S_IMODE(entry.mode))
            os.utime(place, (0, 0), follow_symlinks=False)

    def size(self) -> int:
        """The bytes of all files."""
        return sum(len(entry.data) for entry in self._entries.values() if stat.S_ISREG(entry.mode))

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._entries

    def _put(self, path: str, entry: Entry) -> None:
        name = path.strip("/")
        if not name or ".." in name.split("/"):
            raise InvalidInput(f"{path!r} is no path in an image")
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            above = self._entries.setdefault(str(parent), _FOLDER)
            if not stat.S_ISDIR(above.mode):
                raise InvalidInput(f"{path} cannot be in {parent}, which is no folder")
        before = self._entries.setdefault(name, entry)
        if before != entry and not (stat.S_ISDIR(before.mode) and stat.S_ISDIR(entry.mode)):
            raise InvalidInput(f"{path} would be there twice, with different contents")
        self._entries[name] = entry
