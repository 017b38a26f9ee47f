"""Where a pod VM finds its user data: one module a source, asked in the order of `SOURCES`."""

from podvm.clouds.contract import Source
from podvm.clouds.nocloud import NoCloud

# The config drive first, then one cloud after the other (`reference/podvm.md` 1.7).
SOURCES: tuple[Source, ...] = (NoCloud(),)
