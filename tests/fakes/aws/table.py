"""EC2's part in the table of faults."""

from caa.provider.capacity import Place
from tests.fakes.aws.world import World, world
from tests.fakes.fault_table import FaultTable, Places
from tests.fakes.load_table import LoadTable
from tests.fakes.wire import Noted

_MAKING = (
    "DescribeInstances", "RunInstances", "DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeImages",
    "DescribeSubnets", "DescribeVolumes", "DescribeLaunchTemplateVersions", "AttachVolume", "DescribeAddresses",
    "AllocateAddress", "AssociateAddress",
)  # fmt: skip
_ENDING = ("DescribeInstances", "TerminateInstances", "DescribeAddresses", "DisassociateAddress", "ReleaseAddress")


def _prepare(aws: World) -> None:
    aws.ec2.delays.ending = 0.2  # addresses are held until the instance is gone
    aws.ec2.backend.create_launch_template("kata", "", {"InstanceType": "m6a.large"}, {})


def _slow(aws: World, seconds: float) -> None:
    aws.ec2.delays.address = seconds


def _places(aws: World) -> Places:
    zones = aws.ec2.subnets
    return Places(
        settings={"FALLBACK_ZONES": ",".join(zones[1:]), "FALLBACK_TYPES": "c6a.large,m6a.xlarge"},
        types=("m6a.large", "c6a.large", "m6a.xlarge"),
        zones=zones,
        code="InsufficientInstanceCapacity",
        tried=_tried,
    )


def _tried(noted: Noted) -> Place:
    form = noted.request.form
    spot = form.get("InstanceMarketOptions.MarketType") == "spot"
    return Place(instance_type=form["InstanceType"], zone=form["NetworkInterface.1.SubnetId"], spot=spot)


TABLE = FaultTable(
    cloud="aws",
    world=world,
    making=_MAKING,
    ending=_ENDING,
    staying=("DescribeImages", "RunInstances", "AllocateAddress", "AttachVolume"),
    make="RunInstances",
    everything={"USE_PUBLIC_IP": "1", "EXTERNAL_NETWORK_VIA_PODVM": "1", "USE_PODVM_LAUNCHTEMPLATE": "1"},
    once=frozenset({"AllocateAddress"}),
    proof=frozenset({"GetCallerIdentity"}),
    hurried={"read_timeout": 0.3, "looks": 5, "undo": 200, "running": 20, "address": 20, "attach": 20},
    prepare=_prepare,
    volume=lambda aws: aws.ec2.make_volume("eu-west-1a"),
    slow=_slow,
    began=lambda aws: aws.ec2.began,
    places=_places,
    missing=("PODVM_AMI_ID", "AWS_SUBNET_ID", "AWS_SG_IDS"),
)


def _slowly(aws: World) -> None:
    aws.ec2.delays.pending = 0.2


def _asked(aws: World) -> list[str]:
    forms = [noted.request.form for noted in aws.wire.journal if noted.call == "RunInstances"]
    return [form["TagSpecification.1.Tag.1.Value"] for form in forms]


LOAD = LoadTable(
    table=TABLE,
    speed=10.0,
    per_second=10.0,
    creates=20,
    allowed=130.0,
    looks=("DescribeInstances",),
    prepare=_slowly,
    asked=_asked,
)
