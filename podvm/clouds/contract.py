"""What a source of user data is."""

from typing import Protocol


class Source(Protocol):
    """One way for user data to reach a pod VM."""

    @property
    def name(self) -> str:
        """How the source is called in the log and by the flag `-source`."""

    def present(self) -> bool:
        """Whether this pod VM has this source; decided from the machine itself, in milliseconds."""

    def fetch(self, seconds: float) -> bytes:
        """One try, of at most about `seconds`: the user data, decoded.

        Raises `InvalidInput` (never to be had) or `Unavailable` (later, perhaps).
        """
