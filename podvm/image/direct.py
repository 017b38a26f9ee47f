"""What a machine without UEFI is booted with: mkosi's command line for the kernel, with the root hash."""

import json
from collections.abc import Sequence

from caa.errors import ConfigError
from podvm.image.workshop import Workshop


def command_line(shop: Workshop, build: Sequence[str]) -> str:
    """The line for the disk that the command `build` left in `/out/result`. Raises `ConfigError`."""
    answer = shop.run([*build[:-1], "--json", "summary"], "ask mkosi for the kernel's command line")
    words = json.loads(answer)["Images"][-1]["KernelCommandLine"]
    table = shop.run(["sfdisk", "--json", "/out/result/podvm.raw"], "read the partitions")
    return " ".join([f"roothash={root_hash(table)}", *words]) + "\n"


def root_hash(table: str) -> str:
    """The root hash of dm-verity from `sfdisk --json`: two ids in one, by the Discoverable Partitions Specification.

    Its first half is the id of the root partition, its second that of the hashes. Raises `ConfigError`.
    """
    partitions = json.loads(table)["partitiontable"]["partitions"]
    by_name = {row.get("name", "").endswith("-verity"): row["uuid"] for row in partitions if _is_root(row)}
    if len(by_name) != 2:
        raise ConfigError("this disk has no root partition with hashes")
    return f"{by_name[False]}{by_name[True]}".replace("-", "").lower()


def _is_root(row: dict[str, str]) -> bool:
    return str(row.get("name", "")).startswith("root-")
