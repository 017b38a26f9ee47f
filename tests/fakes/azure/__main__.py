"""`python -m tests.fakes.azure`: a Resource Manager and a token endpoint on the loopback, until Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.world import certified, reached
from tests.fakes.machines import Host
from tests.fakes.serving import Offer, serve
from tests.fakes.wire import Wire

# Seconds: from the PUT until it runs, until Azure calls it made, from the DELETE until it is gone, of every call.
_POWER, _MADE, _ENDING, _LATENCY = 1.5, 4.0, 1.5, 0.05


@contextmanager
def opened(folder: Path, port: int) -> Iterator[Offer]:
    """The cloud, by TLS with an authority of its own."""
    azure = Azure(Role.of_page())
    azure.delays.power, azure.delays.made, azure.delays.ending = _POWER, _MADE, _ENDING
    azure.faults.latency = _LATENCY

    def attach(host: Host) -> None:
        azure.estate.host, host.halted = host, azure.halt

    with Wire(azure, tls=certified(folder), port=port) as wire:
        settings = reached(azure.site, wire.url, ca=folder / "ca.pem")
        yield Offer(settings=settings, ledger=azure.settle, instances=lambda: _named(azure), attach=attach)


def _named(azure: Azure) -> dict[str, str]:
    ids = [azure.estate.id_of("Compute", "virtualMachines", one.id) for one in azure.settle().alive("vm")]
    return {one.rpartition("/")[2]: one for one in ids}


if __name__ == "__main__":
    serve("azure", opened)
