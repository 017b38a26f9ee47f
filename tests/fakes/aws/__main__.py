"""`python -m tests.fakes.aws`: an EC2 and an instance metadata service on the loopback, until Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.aws.ec2 import Delays, Ec2
from tests.fakes.aws.imds import Imds
from tests.fakes.machines import Host
from tests.fakes.serving import Offer, serve
from tests.fakes.wire import Wire

_DELAYS = Delays(pending=1.5, ending=1.0, address=0.1)
_LATENCY = 0.05


@contextmanager
def opened(_: Path, port: int) -> Iterator[Offer]:
    """The cloud, and the metadata service of the worker node in it."""
    ec2 = Ec2()
    ec2.warm_up()
    ec2.delays, ec2.faults.latency = _DELAYS, _LATENCY
    imds = Imds(region=ec2.region, subnet=ec2.subnets[0], groups=(ec2.group,))

    def attach(host: Host) -> None:
        ec2.host, host.halted = host, ec2.stop

    with Wire(ec2, port=port) as wire, Wire(imds) as metadata:
        settings = {
            "AWS_ENDPOINT_URL_EC2": wire.url,
            "AWS_ENDPOINT_URL_STS": wire.url,
            "AWS_ENDPOINT_URL_SERVICE_QUOTAS": wire.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "PODVM_AMI_ID": ec2.ami,
        }
        yield Offer(settings=settings, ledger=ec2.settle, instances=lambda: _named(ec2), attach=attach)


def _named(ec2: Ec2) -> dict[str, str]:
    return {one.tags.get("Name", one.id): one.id for one in ec2.settle().alive("instance")}


if __name__ == "__main__":
    serve("aws", opened)
