"""A node without Kubernetes: nothing is written down beside the store, and nobody can be asked about a pod."""

from caa.model.sandbox import Sandbox
from caa.sandbox.ports import PodState


class NullLedger:
    """`Ledger` that keeps nothing. The store alone says what is ours, and the sweep finds what it lost."""

    async def own(self, sandbox: Sandbox) -> None:
        """Nothing to write."""

    async def note(self, sandbox: Sandbox) -> None:
        """Nothing to write."""

    async def release(self, sandbox: Sandbox) -> None:
        """Nothing to remove."""


class NullWitness:
    """`PodWitness` that knows nothing: the grace periods alone decide."""

    async def state(self, sandbox: Sandbox) -> PodState:  # noqa: ARG002
        return PodState.UNKNOWN
