"""The ledger of a node without Kubernetes: nothing is written down beside the store."""

from caa.model.sandbox import Sandbox


class NullLedger:
    """`Ledger` that keeps nothing. The store alone says what is ours, and the sweep finds what it lost."""

    async def own(self, sandbox: Sandbox) -> None:
        """Nothing to write."""

    async def note(self, sandbox: Sandbox) -> None:
        """Nothing to write."""

    async def release(self, sandbox: Sandbox) -> None:
        """Nothing to remove."""
