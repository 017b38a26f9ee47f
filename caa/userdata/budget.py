"""How much user data a provider takes, and what to say when it is too much. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from caa.errors import UserDataTooLarge
from caa.userdata.cloudconfig import File


@dataclass(frozen=True, slots=True)
class Budget:
    """A provider's limit in bytes, None for none; counted after base64 when `base64`. From `Capabilities`."""

    limit: int | None = None
    base64: bool = False

    def cost(self, size: int) -> int:
        """What a document of `size` bytes counts against the limit."""
        return (size + 2) // 3 * 4 if self.base64 else size


def check(document: bytes, files: Sequence[File], *, budget: Budget) -> None:
    """Raise `UserDataTooLarge` when the document does not fit; the message lists the files, the largest first."""
    cost = budget.cost(len(document))
    if budget.limit is None or cost <= budget.limit:
        return
    largest_first = sorted(files, key=lambda file: file.size, reverse=True)
    parts = ", ".join(f"{file.path} {file.size}" for file in largest_first)
    counted = f" ({len(document)} before base64)" if budget.base64 else ""
    raise UserDataTooLarge(
        f"the user data takes {cost} bytes{counted}, the provider allows {budget.limit}; bytes by file: {parts}; "
        "make the largest smaller: shorter initdata, fewer image pull secrets"
    )
