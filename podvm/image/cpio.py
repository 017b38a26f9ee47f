"""The `newc` archive that Linux unpacks as its first file system. Pure.

Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel. Archives may be put behind one
another; the kernel unpacks all of them.
"""

from podvm.image.tree import Entry, Tree

_END = "TRAILER!!!"
_BLOCK = 512


def archive(tree: Tree) -> bytes:
    """The archive of a tree: the same tree, the same bytes."""
    parts = [_record(path, entry, number=number) for number, (path, entry) in enumerate(tree.entries(), 1)]
    parts.append(_record(_END, Entry(0), number=0))
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % _BLOCK)


def _record(path: str, entry: Entry, *, number: int) -> bytes:
    name = path.encode() + b"\0"
    owner = time = 0
    links = 1
    fields = (
        number, entry.mode, owner, owner, links, time, len(entry.data), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
