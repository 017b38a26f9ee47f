"""CopyFile: files, folders and links that the shim sends because it shares no file system with the pod VM."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from caa.testing.agent.answers import error
from caa.wire.proto import agent


def copy(request: agent.CopyFileRequest, base: Path) -> None:
    """Do one CopyFile below `base`. A file comes in chunks and appears under its name with the last one."""
    path = _below(base, request.path)
    _make_parents(path.parent, base, mode=request.dir_mode & 0o7777)
    kind = stat.S_IFMT(request.file_mode)
    if kind == stat.S_IFDIR:
        path.mkdir(exist_ok=True)
    elif kind == stat.S_IFLNK:
        _link(path, request.data)
    elif not _write_chunk(path, request):
        return
    os.chown(path, request.uid, request.gid, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        path.chmod(request.file_mode & 0o7777)


def _below(base: Path, text: str) -> Path:
    path = Path(text)
    if ".." in path.parts or not path.is_relative_to(base) or path == base:
        raise error(13, "EINVAL: Invalid argument")
    return path


def _make_parents(folder: Path, base: Path, *, mode: int) -> None:
    if folder == base or folder.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        return
    _make_parents(folder.parent, base, mode=mode)
    folder.mkdir(mode=mode or 0o750, exist_ok=True)


def _link(path: Path, target: bytes) -> None:
    new = path.with_name(f"{path.name}.new-link")
    with suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(os.fsdecode(target))
    new.replace(path)


def _write_chunk(path: Path, request: agent.CopyFileRequest) -> bool:
    part = path.with_name(f"{path.name}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if request.offset == 0 else 0)
    fd = os.open(part, flags, 0o600)
    try:
        os.pwrite(fd, request.data, request.offset)
        complete = os.fstat(fd).st_size >= request.file_size
    finally:
        os.close(fd)
    if complete:
        part.replace(path)
    return complete
