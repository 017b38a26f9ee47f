"""What stands around the fake EC2, under the official SDK: disks, places, quotas, identities, policies' conditions."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fakes.aws import quotas
from tests.fakes.aws.ec2 import Ec2
from tests.fakes.aws.policy import Policy, Statement
from tests.fakes.wire import Wire

Make = Callable[[str], Any]
QUICK = {"Delay": 1, "MaxAttempts": 5}


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def make(ec2: Ec2) -> Iterator[Make]:
    """Clients of boto3 by the name of their service."""
    with Wire(ec2) as wire:
        yield lambda service: boto3.client(
            service,
            endpoint_url=wire.url,
            region_name=ec2.region,
            aws_access_key_id="AKIA",
            aws_secret_access_key="s",
            config=Config(retries={"total_max_attempts": 1}),
        )


def refused(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def run(ec2: Ec2, client: Any, **other: Any) -> str:
    wanted = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    made = client.run_instances(**{**wanted, "SubnetId": ec2.subnets[0], **other})
    return str(made["Instances"][0]["InstanceId"])


class TestDisks:
    def state(self, client: Any, volume: str) -> tuple[str, list[str]]:
        found = client.describe_volumes(VolumeIds=[volume])["Volumes"][0]
        return found["State"], [one["State"] for one in found["Attachments"]]

    def test_a_volume_is_attached_after_a_while_and_held_until_its_instance_is_gone(self, ec2: Ec2, make: Make) -> None:
        client, volume = make("ec2"), ec2.make_volume("eu-west-1a")
        ec2.disks.attaching = ec2.delays.ending = 60
        name, other = run(ec2, client), run(ec2, client)
        client.attach_volume(VolumeId=volume, InstanceId=name, Device="/dev/xvdb")
        assert self.state(client, volume) == ("in-use", ["attaching"])
        ec2.disks.attaching = 0
        assert self.state(client, volume) == ("in-use", ["attached"])
        client.terminate_instances(InstanceIds=[name])
        assert self.state(client, volume) == ("in-use", ["attached"])
        assert refused(client.attach_volume, VolumeId=volume, InstanceId=other, Device="/dev/xvdb") == "VolumeInUse"
        ec2.instances[name].ends = 0
        client.get_waiter("instance_terminated").wait(InstanceIds=[name], WaiterConfig=QUICK)
        client.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=QUICK)
        client.attach_volume(VolumeId=volume, InstanceId=other, Device="/dev/xvdb")

    def test_what_cannot_be_attached(self, ec2: Ec2, make: Make) -> None:
        client, ours, far = make("ec2"), ec2.make_volume("eu-west-1a"), ec2.make_volume("eu-west-1b")
        ec2.delays.pending = 60
        name = run(ec2, client)
        there = {"InstanceId": name, "Device": "/dev/xvdb"}
        assert refused(client.attach_volume, VolumeId=ours, **there) == "IncorrectState"
        ec2.delays.pending = 0
        assert refused(client.attach_volume, VolumeId=far, **there) == "InvalidVolume.ZoneMismatch"
        assert refused(client.attach_volume, VolumeId="vol-0123456789abcdef0", **there) == "InvalidVolume.NotFound"
        nobody = {**there, "InstanceId": "i-0123456789abcdef0"}
        assert refused(client.attach_volume, VolumeId=ours, **nobody) == "InvalidInstanceID.NotFound"
        client.attach_volume(VolumeId=ours, **there)
        assert refused(client.attach_volume, VolumeId=ours, **there) == "VolumeInUse"


class TestPlaces:
    SPOT = {"MarketType": "spot"}  # noqa: RUF012
    BLOCK = {"MarketType": "capacity-block"}  # noqa: RUF012

    @staticmethod
    def reserved(name: str) -> dict[str, Any]:
        return {"CapacityReservationTarget": {"CapacityReservationId": name}}

    def test_what_is_there_and_what_is_not(self, ec2: Ec2, make: Make) -> None:
        client = make("ec2")
        ec2.places.groups, ec2.places.hosts = {"near"}, {"h-1"}
        ec2.places.reservations = {"cr-1": False, "cr-2": True}
        run(ec2, client, Placement={"GroupName": "near"})
        run(ec2, client, Placement={"HostId": "h-1", "Tenancy": "host"})
        run(ec2, client, CapacityReservationSpecification=self.reserved("cr-1"))
        run(ec2, client, CapacityReservationSpecification=self.reserved("cr-2"), InstanceMarketOptions=self.BLOCK)
        assert len(ec2.ledger.alive("instance")) == 4

    @pytest.mark.parametrize(
        ("other", "code"),
        [
            ({"Placement": {"GroupName": "far"}}, "InvalidPlacementGroup.Unknown"),
            ({"Placement": {"HostId": "h-2", "Tenancy": "host"}}, "InvalidHostID.NotFound"),
            ({"Placement": {"HostId": "h-1"}}, "InvalidParameterCombination"),
            ({"Placement": {"Tenancy": "host"}, "InstanceMarketOptions": SPOT}, "InvalidParameterCombination"),
            (
                {"CapacityReservationSpecification": reserved("cr-1"), "InstanceMarketOptions": BLOCK},
                "InvalidParameterCombination",
            ),
            ({"CapacityReservationSpecification": reserved("cr-2")}, "InvalidParameterCombination"),
            ({"CapacityReservationSpecification": reserved("cr-3")}, "InvalidCapacityReservationId.NotFound"),
            ({"InstanceMarketOptions": BLOCK}, "MissingParameter"),
            ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ],
    )
    def test_what_is_refused(self, ec2: Ec2, make: Make, other: dict[str, Any], code: str) -> None:
        ec2.places.hosts, ec2.places.reservations = {"h-1"}, {"cr-1": False, "cr-2": True}
        wanted = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
        assert refused(make("ec2").run_instances, **wanted, **other) == code
        assert not ec2.ledger


def test_quotas_come_page_by_page(ec2: Ec2, make: Make) -> None:
    client = make("service-quotas")
    pages = list(client.get_paginator("list_service_quotas").paginate(ServiceCode="ec2"))
    assert len(pages) > 1
    found = {one["QuotaName"]: one["Value"] for page in pages for one in page["Quotas"]}
    assert found == ec2.quotas.values
    assert refused(client.list_service_quotas, ServiceCode="s3") == "IllegalArgumentException"


def test_a_quota_counts_by_the_way_to_buy(ec2: Ec2, make: Make) -> None:
    client = make("ec2")
    ec2.quotas.values |= {quotas.STANDARD: 2, quotas.SPOT: 2}
    wanted = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    run(ec2, client)
    assert refused(client.run_instances, **wanted) == "VcpuLimitExceeded"
    run(ec2, client, InstanceMarketOptions={"MarketType": "spot"})
    assert refused(client.run_instances, **wanted, InstanceMarketOptions={"MarketType": "spot"}) == "VcpuLimitExceeded"


def test_web_identities(ec2: Ec2, make: Make) -> None:
    client = make("sts")
    ec2.identity.tokens = {"good"}
    asked = {"RoleArn": "arn:aws:iam::123456789012:role/caa", "RoleSessionName": "node-1"}
    given = client.assume_role_with_web_identity(**asked, WebIdentityToken="good")["Credentials"]
    assert given["AccessKeyId"] in ec2.identity.given
    assert given["Expiration"].timestamp() > time.time()
    assert refused(client.assume_role_with_web_identity, **asked, WebIdentityToken="another") == "InvalidIdentityToken"


def test_a_condition_on_tags(ec2: Ec2, make: Make) -> None:
    client = make("ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "caa-cluster", "Value": "prod-1"}]}]
    ours, theirs = run(ec2, client, TagSpecifications=tags), run(ec2, client)
    ec2.policy = Policy([], [Statement(["ec2:TerminateInstances"], tags={"caa-cluster": "prod-1"})])
    assert refused(client.terminate_instances, InstanceIds=[theirs]) == "UnauthorizedOperation"
    assert refused(client.terminate_instances, InstanceIds=[ours, theirs]) == "UnauthorizedOperation"
    assert refused(client.terminate_instances, InstanceIds=["i-0123456789abcdef0"]) == "UnauthorizedOperation"
    assert refused(client.terminate_instances, InstanceIds=[ours], DryRun=True) == "DryRunOperation"
    client.terminate_instances(InstanceIds=[ours])


def test_a_condition_on_the_kind_of_resource(ec2: Ec2, make: Make) -> None:
    client, volume = make("ec2"), ec2.make_volume("eu-west-1a")
    name = run(ec2, client)
    wanted = {"VolumeId": volume, "InstanceId": name, "Device": "/dev/xvdb"}
    volumes = Statement(["ec2:AttachVolume"], "arn:aws:ec2:*:*:volume/*")
    ec2.policy = Policy([], [volumes])
    assert refused(client.attach_volume, **wanted) == "UnauthorizedOperation"
    ec2.policy = Policy([], [volumes, Statement(["ec2:AttachVolume"], "arn:aws:ec2:*:*:instance/*")])
    client.attach_volume(**wanted)


def test_a_dry_run_names_what_does_not_exist(ec2: Ec2, make: Make) -> None:
    """As EC2 does, and only to somebody who has the right."""
    client = make("ec2")
    absent = {"InstanceIds": ["i-0123456789abcdef0"], "DryRun": True}
    assert refused(client.terminate_instances, **absent) == "InvalidInstanceID.NotFound"
    ec2.policy = Policy(["ec2:Describe*"])
    assert refused(client.terminate_instances, **absent) == "UnauthorizedOperation"
