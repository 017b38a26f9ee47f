"""Pod VMs as EC2 instances.

Read `translate.py` (what is asked of EC2) and `shapes.py` (what it answers), then `launch.py`, then `provider.py`.
`client.py` alone knows boto3. `docs/providers/aws.md` is for operators.
"""

from collections.abc import Iterator

from caa.config.load import Settings
from caa.errors import ConfigError
from caa.provider import rows
from caa.provider.clock import Clock, RealClock
from caa.provider.contract import Provider
from caa.provider.ownership import refuse_illegal
from caa.provider.threads import Threads
from providers.aws import settings
from providers.aws.client import Boto
from providers.aws.provider import AwsProvider, Means
from providers.aws.shapes import LIMITS
from providers.aws.surroundings import Node, Surroundings, Waits

SETTINGS = settings.SETTINGS

_THREADS = 16  # boto3 calls at a time
_REAL, _WAITS = RealClock(), Waits()


def make(values: Settings, *, clock: Clock = _REAL, waits: Waits = _WAITS) -> Provider:
    """The driver for these settings. Raises `ConfigError`; no I/O, the SDK is imported with the first call."""
    refuse_illegal(values[rows.TAGS], limits=LIMITS)
    rows.refuse_zones(values, settings.SUBNET.kind)
    _refuse_conflicts(values)
    threads, pacing = Threads(_THREADS, "aws"), rows.pacing(values, clock)
    node = Node(values, threads, waits=waits)
    ec2 = Boto(node.access, pacing=pacing, threads=threads)
    around = Surroundings(ec2, node, values=values, clock=clock)
    return AwsProvider(values, Means(ec2=ec2, around=around, pacing=pacing, clock=clock, waits=waits))


def _refuse_conflicts(values: Settings) -> None:
    if problems := list(_conflicts(values)):
        raise ConfigError("; ".join(problems))


def _conflicts(values: Settings) -> Iterator[str]:
    if bool(values[settings.ACCESS_KEY_ID]) != bool(values[settings.SECRET_KEY]):
        yield "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: set both of them, or none"
    if values[settings.CAPACITY_BLOCK] and not values[settings.RESERVATION]:
        yield "AWS_CAPACITY_BLOCK is set without AWS_CAPACITY_RESERVATION_ID: name the capacity block"
    hosted = values[settings.HOST_ID] or values[settings.HOST_GROUP]
    if hosted and values[settings.TENANCY] not in ("", "host"):
        yield (
            f"AWS_TENANCY is {values[settings.TENANCY]}, and AWS_DEDICATED_HOST_ID and AWS_HOST_RESOURCE_GROUP_ARN "
            "imply host: unset one"
        )
    host = hosted or values[settings.TENANCY] == "host"
    if rows.SPOT in values[rows.PURCHASE_OPTIONS] and (host or values[settings.RESERVATION]):
        yield (
            "PURCHASE_OPTIONS has spot, which EC2 sells neither on dedicated hosts nor from a capacity reservation or "
            "block: take spot out, or unset AWS_DEDICATED_HOST_ID, AWS_HOST_RESOURCE_GROUP_ARN, AWS_TENANCY=host and "
            "AWS_CAPACITY_RESERVATION_ID"
        )
