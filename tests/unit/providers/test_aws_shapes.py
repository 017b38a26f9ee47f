"""EC2's replies into nouns, short, odd and empty ones too; requests that are data alone."""

from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import pytest

from caa.config.load import load
from caa.errors import (
    CapacityError,
    CredentialsError,
    Gone,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    Throttled,
)
from caa.model.ids import SandboxId
from caa.model.instance import Arch, InstanceState, LaunchRequest, Owner, Tee
from caa.provider.capacity import Place
from providers.aws import SETTINGS, client, shapes, translate
from providers.aws.codes import CODES

IMAGE: Any = MappingProxyType(
    {
        "ImageId": "ami-1",
        "State": "available",
        "RootDeviceName": "/dev/xvda",
        "Architecture": "arm64",
        "BootMode": "uefi-preferred",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 12}},
        ],
    }
)


def request(**other: Any) -> LaunchRequest:
    fields = {"name": "podvm-a-1", "sandbox": SandboxId("s"), "token": "t", "user_data": b"#cloud-config\n", **other}
    return LaunchRequest(owner=Owner(cluster="c", node="n"), **fields)


class TestImages:
    def test_the_root_is_found_by_its_name(self) -> None:
        """There the first mapping was taken; an instance store there ended the daemon."""
        found = shapes.image(IMAGE)
        assert (found.root_device, found.root_size, found.arch, found.uefi) == ("/dev/xvda", 12, Arch.ARM64, True)

    @pytest.mark.parametrize(
        ("other", "told"),
        [
            ({"State": "pending"}, "InvalidAMIID.Unavailable"),
            ({"BlockDeviceMappings": []}, "no EBS root disk"),
            ({"RootDeviceName": ""}, "no EBS root disk"),
            ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda"}]}, "no EBS root disk"),
        ],
    )
    def test_images_that_cannot_serve(self, other: dict[str, Any], told: str) -> None:
        with pytest.raises(InvalidRequest, match=told):
            shapes.image({**IMAGE, **other})


class TestInstances:
    @pytest.mark.parametrize("reply", [{}, {"Reservations": []}, {"Instances": []}, {"Instances": [{}]}])
    def test_an_answer_without_an_instance_is_an_error(self, reply: dict[str, Any]) -> None:
        """There an empty reply was a nil pointer."""
        with pytest.raises(ProviderUnavailable):
            shapes.only_instance(reply)

    @pytest.mark.parametrize("public", [True, False])
    def test_what_has_no_address_yet_has_none(self, public: bool) -> None:
        for found in ({}, {"NetworkInterfaces": [{"Association": None}]}, {"PrivateIpAddress": "0.0.0.0"}):
            assert shapes.instance(found, public=public).addresses == ()

    def test_addresses_by_device_index(self) -> None:
        nics = [
            {"PrivateIpAddress": "10.0.0.2", "Attachment": {"DeviceIndex": 1}},
            {
                "PrivateIpAddress": "10.0.0.1",
                "Attachment": {"DeviceIndex": 0},
                "Ipv6Addresses": [{"Ipv6Address": "fd00::1"}],
            },
        ]
        found = shapes.instance({"NetworkInterfaces": nics}, public=False)
        assert found.addresses == tuple(map(ip_address, ("10.0.0.1", "fd00::1", "10.0.0.2")))

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            ("pending", InstanceState.RUNNING),
            ("running", InstanceState.RUNNING),
            ("stopping", InstanceState.STOPPED),
            ("stopped", InstanceState.STOPPED),
            ("shutting-down", InstanceState.STOPPED),
            ("terminated", InstanceState.ABSENT),
        ],
    )
    def test_states(self, state: str, told: InstanceState) -> None:
        assert shapes.running({"State": {"Name": state}}) is told

    def test_the_attachment_that_counts_is_ours(self) -> None:
        """There Attachments[0] was read, whosever it was."""
        volume = {
            "Attachments": [{"InstanceId": "i-2", "State": "attached"}, {"InstanceId": "i-1", "State": "attaching"}]
        }
        assert not shapes.attached(volume, "i-1")
        assert shapes.attached(volume, "i-2")
        assert not shapes.attached({}, "i-1")


def test_types() -> None:
    found = shapes.instance_type(
        {
            "InstanceType": "g5.xlarge",
            "VCpuInfo": {"DefaultVCpus": 4},
            "MemoryInfo": {"SizeInMiB": 16384},
            "GpuInfo": {"Gpus": [{"Count": 1}, {"Count": 2}]},
            "ProcessorInfo": {"SupportedArchitectures": ["i386", "x86_64"], "SupportedFeatures": ["amd-sev-snp"]},
        },
        ["a"],
    )
    assert (found.gpus, found.arch, found.tees, found.zones) == (3, Arch.AMD64, {Tee.SNP}, {"a"})


@pytest.mark.parametrize(
    ("rule", "lets"),
    [
        ({"IpProtocol": "-1"}, True),
        ({"IpProtocol": "tcp", "FromPort": 15000, "ToPort": 16000}, True),
        ({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}, False),
        ({"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535}, False),
    ],
)
def test_rules_of_security_groups(rule: dict[str, Any], lets: bool) -> None:
    assert shapes.lets_in([{"IpPermissions": [rule]}], "tcp", port=15150) is lets


NODE = shapes.Whereabouts("10.0.0.10", frozenset({"sg-1"}))


@pytest.mark.parametrize(
    ("sources", "lets"),
    [
        ({"IpRanges": [{"CidrIp": "10.0.0.0/16"}]}, True),
        ({"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, True),
        ({"IpRanges": [{"CidrIp": "192.0.2.0/24"}, {"CidrIp": "10.0.0.11/32"}]}, False),
        ({"UserIdGroupPairs": [{"GroupId": "sg-1"}]}, True),
        ({"UserIdGroupPairs": [{"GroupId": "sg-2"}]}, False),
        ({"PrefixListIds": [{"PrefixListId": "pl-1"}]}, True),
        ({}, False),
    ],
)
def test_a_rule_has_to_be_about_the_node_where_it_is_known(sources: dict[str, object], lets: bool) -> None:
    groups = [{"IpPermissions": [{"IpProtocol": "-1", **sources}]}]
    assert shapes.lets_in(groups, "tcp", port=15150, node=NODE) is lets
    assert shapes.lets_in(groups, "tcp", port=15150)


def test_metadata_that_tells_no_address() -> None:
    assert shapes.whereabouts("10.0.0.10", "sg-1\nsg-2") == shapes.Whereabouts("10.0.0.10", frozenset({"sg-1", "sg-2"}))
    assert shapes.whereabouts("", "sg-1") is None
    assert shapes.whereabouts("<html>", "") is None


class TestRequests:
    def test_device_names(self) -> None:
        names = translate.device_names(52)
        assert names[:2] == ["/dev/xvdb", "/dev/xvdc"]
        assert names[24:26] == ["/dev/xvdz", "/dev/xvdba"]
        assert names[50:] == ["/dev/xvdbz", "/dev/xvdca"]

    def test_tokens(self) -> None:
        here, there = Place(instance_type="a", zone="1"), Place(instance_type="a", zone="2")
        assert translate.token(request(), here, generation=0) == translate.token(request(), here, generation=0)
        others = {
            translate.token(request(), there, generation=0),
            translate.token(request(), here, generation=1),
            translate.token(request(token="u"), here, generation=0),
            translate.token(request(), here, generation=0),
        }
        assert len(others) == 4
        assert all(len(one) <= 64 for one in others)

    @pytest.mark.parametrize("volume", ["", "vol-", "vol-xyz", "/dev/sda", "vol-0123456789abcdef0; rm"])
    def test_volumes_that_are_none(self, volume: str) -> None:
        with pytest.raises(InvalidRequest, match="EBS volume id"):
            translate.refuse_volumes([volume])

    def test_a_flat_template_and_a_public_address(self) -> None:
        values = load(SETTINGS, {"USE_PUBLIC_IP": "true"})
        with pytest.raises(Misconfigured, match="network interface"):
            translate.network(values, ["sg-1"], flat=True)
        flat = translate.network(load(SETTINGS, {}), ["sg-1"], flat=True)
        assert translate.interfaces(flat, "subnet-1") == {"SubnetId": "subnet-1", "SecurityGroupIds": ["sg-1"]}

    @pytest.mark.parametrize(
        ("environ", "told"),
        [
            ({"AWS_DEDICATED_HOST_ID": "h-1"}, {"Placement": {"HostId": "h-1", "Tenancy": "host"}}),
            ({"AWS_TENANCY": "dedicated"}, {"Placement": {"Tenancy": "dedicated"}}),
            (
                {"AWS_CAPACITY_RESERVATION_ID": "cr-1", "AWS_CAPACITY_BLOCK": "true"},
                {"InstanceMarketOptions": {"MarketType": "capacity-block"}},
            ),
        ],
    )
    def test_where_and_how_it_is_bought(self, environ: dict[str, str], told: dict[str, Any]) -> None:
        plan = translate.Plan(
            request=request(),
            image=shapes.image(IMAGE),
            network=translate.Network(groups=("sg-1",)),
            settings=load(SETTINGS, environ),
        )
        found = translate.run_instances(plan, Place(instance_type="a", zone="subnet-1"))
        assert told.items() <= found.items()


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("InsufficientInstanceCapacity", 500, CapacityError),
            ("RequestLimitExceeded", 503, Throttled),
            ("UnauthorizedOperation", 403, CredentialsError),
            ("InvalidSubnetID.NotFound", 400, Misconfigured),
            ("InvalidAMIID.NotFound", 400, InvalidRequest),
            ("InvalidInstanceID.NotFound", 400, Gone),
            ("Surprise", 500, ProviderUnavailable),
            ("Surprise", 400, ProviderError),
        ],
    )
    def test_answers(self, code: str, status: int, kind: type[ProviderError]) -> None:
        meta = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "7"}}
        answer = {"Error": {"Code": code, "Message": "Words."}, "ResponseMetadata": meta}
        error = client.of_answer("run_instances", answer)
        assert type(error) is kind
        assert str(error).startswith(f"{code}: Words (RunInstances)")
        assert not isinstance(error, Throttled) or error.retry_after == 7

    def test_no_code_means_two_things(self) -> None:
        groups = [
            CODES.capacity, CODES.quota, CODES.throttled, CODES.unavailable,
            CODES.unauthorised, CODES.misconfigured, CODES.invalid, CODES.gone,
        ]  # fmt: skip
        assert sum(map(len, groups)) == len(frozenset().union(*groups))
        assert CODES.remedies.keys() <= frozenset().union(*groups)
