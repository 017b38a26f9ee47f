"""What a resumable session may have to send again: blocks of bytes, and the pool they come from. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.frames import Buffer

# Reads of so much are kept as they are, shorter ones are copied together into blocks of about this size.
LARGE = 64 << 10
# What is sent again goes out in blocks of this size, a bufferful of the loop.
BLOCK = 128 << 10


class Pool:
    """Blocks of one size that come back once they are acknowledged. Fresh pages cost a fifth of the processor time.

    One for a whole process; it holds at most `most` blocks that nobody uses.
    """

    __slots__ = ("_blocks", "_most", "size")

    def __init__(self, size: int = BLOCK, most: int = 16) -> None:
        self.size = size
        self._most = most
        self._blocks: list[bytearray] = []

    def take(self) -> bytearray:
        """A block with anything in it."""
        return self._blocks.pop() if self._blocks else bytearray(self.size)

    def give(self, block: bytearray) -> None:
        """Nobody reads this block any more; one of another size is left to the garbage collector."""
        if len(block) == self.size and len(self._blocks) < self._most:
            self._blocks.append(block)

    def trim(self, left: int = 0) -> None:
        """Let go of all but `left` blocks, at a quiet moment."""
        del self._blocks[left:]


class Replay:
    """The bytes from the count `base` on. `tail` collects small ones; nothing outside keeps a view of it.

    Kept while the link is down too: then `rewind` at the next link, and `next` until it returns None.
    """

    __slots__ = ("_blocks", "_given", "_pool", "base", "tail")

    def __init__(self, pool: Pool | None, base: int = 0) -> None:
        self._pool = pool
        self._blocks: tuple[Buffer, ...] = ()  # few: a session is full at 2 MiB
        self._given = 0
        self.base = base
        self.tail = bytearray()

    def add(self, data: Buffer) -> None:
        """Remember a copy."""
        self.tail += data
        if len(self.tail) >= LARGE:
            self.seal()

    def keep(self, data: memoryview) -> None:
        """Remember the bytes themselves: their block belongs to us until the pool has it back."""
        if self.tail:
            self.seal()
        self._blocks += (data,)

    def seal(self) -> None:
        """The tail becomes a block."""
        self._blocks += (self.tail,)
        self.tail = bytearray()

    def drop(self, count: int) -> None:
        """Forget what comes before `count`: whole blocks, and any part of the tail."""
        done = 0
        for block in self._blocks:
            if self.base + len(block) > count:
                break
            self.base += len(block)
            self._recycle(block)
            done += 1
        self._blocks = self._blocks[done:]
        self._given = max(self._given - done, 0)
        if not self._blocks and count > self.base:
            del self.tail[: count - self.base]
            self.base = count

    def _recycle(self, block: Buffer) -> None:
        if self._pool is not None and isinstance(block, memoryview) and isinstance(block.obj, bytearray):
            self._pool.give(block.obj)

    def rewind(self, count: int) -> None:
        """Start again at `count`, which is not before `base`. Small blocks are joined."""
        data = memoryview(self.since(count))
        for block in self._blocks:
            self._recycle(block)
        self._blocks = tuple(data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
        self._given = 0
        self.base = count
        self.tail = bytearray()

    def next(self) -> Buffer | None:
        """The next block after `rewind`; None when everything has been given, what was added since then too."""
        if self._given == len(self._blocks) and self.tail:
            self.seal()
        if self._given == len(self._blocks):
            return None
        block = self._blocks[self._given]
        self._given += 1
        return block

    def given(self) -> int:
        """The count up to which `next` has given bytes."""
        return self.base + sum(len(block) for block in self._blocks[: self._given])

    def since(self, count: int) -> bytes:
        """A copy of everything from `count` on."""
        data = b"".join((*self._blocks, self.tail))
        return data[count - self.base :] if count > self.base else data
