"""The fake EC2 is EC2 for the official SDK too, in ways that the driver does not use."""

import base64
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fakes.aws import quotas
from tests.fakes.aws.ec2 import Ec2
from tests.fakes.aws.policy import Policy
from tests.fakes.faults import Fault
from tests.fakes.wire import Wire


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def client(ec2: Ec2) -> Iterator[Any]:
    """boto3 with its own retries and waiters."""
    with Wire(ec2) as wire:
        made = boto3.client(
            "ec2",
            endpoint_url=wire.url,
            region_name=ec2.region,
            aws_access_key_id="AKIA",
            aws_secret_access_key="s",
            config=Config(retries={"total_max_attempts": 4, "mode": "standard"}),
        )
        yield made
        made.close()


def refused(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def test_a_life_with_waiters_and_paginators(ec2: Ec2, client: Any) -> None:
    ec2.delays.pending, ec2.delays.ending = 0.3, 0.3
    made = client.run_instances(ImageId=ec2.ami, InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"][0]
    assert made["State"]["Name"] == "pending"
    quick = {"Delay": 1, "MaxAttempts": 5}
    client.get_waiter("instance_running").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=quick)
    pages = client.get_paginator("describe_instances").paginate()
    assert [one["InstanceId"] for page in pages for group in page["Reservations"] for one in group["Instances"]] == [
        made["InstanceId"]
    ]
    assert ec2.ledger.cost_per_hour() > 0
    ended = client.terminate_instances(InstanceIds=[made["InstanceId"]])["TerminatingInstances"][0]
    assert ended["CurrentState"]["Name"] == "shutting-down"
    assert ec2.ledger.alive("instance")
    client.get_waiter("instance_terminated").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=quick)
    client.describe_addresses()
    assert not ec2.ledger


def test_a_token_answers_again_and_refuses_another_request(ec2: Ec2, client: Any) -> None:
    same = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, "ClientToken": "t"}
    first, second = (client.run_instances(**same)["Instances"][0]["InstanceId"] for _ in range(2))
    assert first == second
    assert refused(client.run_instances, **{**same, "InstanceType": "m5.xlarge"}) == "IdempotentParameterMismatch"
    client.terminate_instances(InstanceIds=[first])
    assert client.run_instances(**same)["Instances"][0]["State"]["Name"] == "terminated"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"InstanceType": "x99.large"}, "InvalidParameterValue"),
        ({"ImageId": "ami-0abcdef1234567890"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "m6g.large"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"CpuOptions": {"AmdSevSnp": "enabled"}}, "InvalidParameterCombination"),
        ({"SubnetId": "subnet-0abcdef1234567890"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0abcdef1234567890"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "s", "NetworkInterfaces": [{"DeviceIndex": 0}]}, "InvalidParameterCombination"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_ec2_refuses(ec2: Ec2, client: Any, parameters: dict[str, Any], code: str) -> None:
    plain = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    assert refused(client.run_instances, **{**plain, **parameters}) == code
    assert not ec2.ledger


def test_unknown_and_ill_typed_parameters(ec2: Ec2, client: Any) -> None:
    def send(**form: str) -> str:
        def add(params: dict[str, Any], **_: Any) -> None:
            params["body"].update(form)

        client.meta.events.register("before-call.ec2.DescribeSubnets", add)
        try:
            return refused(client.describe_subnets)
        finally:
            client.meta.events.unregister("before-call.ec2.DescribeSubnets", add)

    assert send(Subnet="x") == "UnknownParameter"
    assert send(**{"Filter.1.Nam": "x"}) == "UnknownParameter"
    assert send(DryRun="yes") == "InvalidParameterValue"
    assert send(MaxResults="many") == "InvalidParameterValue"
    assert refused(client.attach_volume, VolumeId="", InstanceId="", Device="", DryRun=True) == "InvalidVolume.NotFound"


def test_user_data_comes_back_as_it_went(ec2: Ec2, client: Any) -> None:
    made = client.run_instances(
        ImageId=ec2.ami, InstanceType="m5.large", MinCount=1, MaxCount=1, UserData="#cloud-config\n"
    )["Instances"][0]["InstanceId"]
    found = client.describe_instance_attribute(InstanceId=made, Attribute="userData")
    assert base64.b64decode(found["UserData"]["Value"]) == b"#cloud-config\n"


def test_the_sdks_own_retries_outlast_a_throttled_call(ec2: Ec2, client: Any) -> None:
    ec2.faults.plan("DescribeSubnets", Fault.THROTTLED, times=2)
    assert client.describe_subnets()["Subnets"]


def test_room_and_quota(ec2: Ec2, client: Any) -> None:
    plain = {"ImageId": ec2.ami, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    ec2.faults.full = {("m5.large", "eu-west-1b")}
    assert refused(client.run_instances, **plain, SubnetId=ec2.subnets[1]) == "InsufficientInstanceCapacity"
    client.run_instances(**plain, SubnetId=ec2.subnets[0])
    ec2.quotas.values[quotas.STANDARD] = 2
    assert refused(client.run_instances, **plain, SubnetId=ec2.subnets[0]) == "VcpuLimitExceeded"


def test_an_address_says_whose_it_is(ec2: Ec2, client: Any) -> None:
    """moto leaves InstanceId empty when the address sits on an interface."""
    made = client.run_instances(ImageId=ec2.ami, InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"][0]
    address = client.allocate_address(Domain="vpc")
    nic = made["NetworkInterfaces"][0]["NetworkInterfaceId"]
    client.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=nic)
    client.describe_instances()
    assert client.describe_addresses()["Addresses"][0]["InstanceId"] == made["InstanceId"]


def test_a_new_instance_is_not_seen_at_once(ec2: Ec2, client: Any) -> None:
    ec2.faults.visible_after = 60
    client.run_instances(ImageId=ec2.ami, InstanceType="m5.large", MinCount=1, MaxCount=1)
    assert [one for group in client.describe_instances()["Reservations"] for one in group["Instances"]] == []


def test_a_policy_denies_what_it_does_not_list(ec2: Ec2, client: Any) -> None:
    ec2.policy = Policy(["ec2:Describe*"])
    client.describe_subnets()
    assert refused(client.create_key_pair, KeyName="x") == "UnauthorizedOperation"


def test_callers_without_a_known_key(ec2: Ec2, client: Any) -> None:
    ec2.keys = {"AKIAOTHER"}
    assert refused(client.describe_subnets) == "AuthFailure"
