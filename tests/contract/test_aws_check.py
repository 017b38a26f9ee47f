"""What `check` finds, the rights of the documentation, facts of the node."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import providers.aws
from caa.config.load import load
from caa.errors import ConfigError, CredentialsError, Misconfigured
from caa.model.instance import Owner, Severity
from caa.provider.contract import Provider
from tests.fakes.aws import quotas
from tests.fakes.aws.imds import Imds
from tests.fakes.aws.policy import Policy
from tests.fakes.aws.world import OWNER, World, launch, world
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.wire import Wire


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def wrong(driver: Provider) -> dict[str, str]:
    """Subject -> detail and remedy of what is an error or a warning."""
    findings = await driver.check()
    await driver.close()
    assert all(one.remedy for one in findings if one.severity is not Severity.OK)
    return {one.subject: f"{one.detail} | {one.remedy}" for one in findings if one.severity is not Severity.OK}


class TestCheck:
    """Each finding says what to change."""

    @pytest.mark.parametrize(
        ("settings", "subject", "told"),
        [
            ({"PODVM_AMI_ID": "ami-0abcdef1234567890"}, "image", "InvalidAMIID.NotFound"),
            ({"PODVM_AMI_ID": "ami-00000000000000002"}, "image", "UEFI"),
            ({"PODVM_INSTANCE_TYPES": "m6a.large,x99.large"}, "instance types", "x99.large does not exist"),
            ({"PODVM_INSTANCE_TYPES": "m5.large"}, "instance types", "m5.large has no TEE"),
            ({"AWS_SUBNET_ID": "subnet-0123456789abcdef0"}, "subnets", "AWS_SUBNET_ID"),
            ({"AWS_SG_IDS": "sg-0123456789abcdef0"}, "security groups", "AWS_SG_IDS"),
            ({"FORWARDER_PORT": "9999"}, "security groups", "tcp 9999"),
            ({"VXLAN_PORT": "9998"}, "security groups", "udp 9998"),
            ({"SSH_KP_NAME": "nobody"}, "launch", "SSH_KP_NAME"),
            ({"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}, "credentials", "Could not connect"),
        ],
    )
    async def test_what_is_wrong_is_told(self, aws: World, settings: dict[str, str], subject: str, told: str) -> None:
        found = await wrong(aws.make(**settings))
        assert told in found[subject]

    async def test_a_subnet_without_addresses(self, aws: World) -> None:
        subnet = aws.ec2.backend.get_subnet(aws.ec2.subnets[0])
        subnet._available_ip_addresses = 0
        assert "0 free addresses" in (await wrong(aws.make()))["subnets"]

    async def test_a_key_that_aws_does_not_know(self, aws: World) -> None:
        aws.ec2.keys = {"AKIAOTHER"}
        found = await wrong(aws.make())
        assert list(found) == ["credentials"]
        assert "AWS_SECRET_ACCESS_KEY" in found["credentials"]

    @pytest.mark.parametrize(
        ("groups", "reached"), [((), False), (("sg-0123456789abcdef0",), True), (("sg-0123456789abcdef1",), False)]
    )
    async def test_a_group_that_lets_others_in(self, aws: World, groups: tuple[str, ...], reached: bool) -> None:
        """Rules are held against the node's own address and groups, where its metadata tells them."""
        backend = aws.ec2.backend
        vpc = next(iter(backend.subnets["eu-west-1a"].values())).vpc_id
        shut = backend.create_security_group("shut", "others only", vpc_id=vpc)
        nodes = backend.create_security_group("nodes", "nodes", vpc_id=vpc)
        for protocol, port in (("tcp", "15150"), ("udp", "4789")):
            elsewhere = [{"CidrIp": "192.0.2.0/24"}]
            backend.authorize_security_group_ingress(shut.id, protocol, port, port, elsewhere)
            source = [{"GroupId": nodes.id}]
            backend.authorize_security_group_ingress(shut.id, protocol, port, port, [], source_groups=source)
        mine = tuple(nodes.id if one.endswith("0") else one for one in groups)
        with Wire(Imds(region=aws.ec2.region, subnet="", groups=mine)) as wire:
            found = await wrong(aws.make(AWS_SG_IDS=str(shut.id), AWS_EC2_METADATA_SERVICE_ENDPOINT=wire.url))
        if reached:
            assert "security groups" not in found
        else:
            assert "from the node (10.0.0.10)" in found["security groups"]

    async def test_nothing_is_wrong_and_nothing_is_made(self, aws: World) -> None:
        assert await wrong(aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")) == {}
        assert aws.ec2.ledger.made == {}


class TestQuota:
    """What is left of the account's quotas, by family and way to buy."""

    async def test_all_is_told(self, aws: World) -> None:
        driver = aws.make(
            EXTERNAL_NETWORK_VIA_PODVM="true",
            USE_PUBLIC_IP="true",
            PURCHASE_OPTIONS="on-demand,spot",
            FALLBACK_TYPES="g4dn.xlarge",
        )
        made = await driver.create(launch())
        told = [one.detail for one in await driver.check() if one.subject == "quota"]
        assert told == [
            f"638 of 640 vCPUs are left: {quotas.STANDARD}",
            f"64 of 64 vCPUs are left: {quotas.GPUS}",
            f"640 of 640 vCPUs are left: {quotas.SPOT}",
            "48 of 50 Elastic IPs are left",
        ]
        await driver.delete(made.id)
        await driver.close()

    @pytest.mark.parametrize(
        ("quota", "value", "severity", "told"),
        [
            (quotas.STANDARD, 4, Severity.WARNING, "4 of 4 vCPUs"),
            (quotas.STANDARD, 0, Severity.ERROR, "0 of 0 vCPUs"),
            (quotas.GPUS, 0, Severity.WARNING, "G and VT"),  # for a type that is only a fallback
            (quotas.ELASTIC_IPS, 5, Severity.WARNING, "5 of 5 Elastic IPs"),
        ],
    )
    async def test_little_is_left(self, aws: World, quota: str, value: int, severity: Severity, told: str) -> None:
        aws.ec2.quotas.values[quota] = value
        driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true", FALLBACK_TYPES="g4dn.xlarge")
        found = [one for one in await driver.check() if one.subject == "quota" and one.severity is not Severity.OK]
        assert [one.severity for one in found] == [severity]
        assert told in found[0].detail
        assert "AWS" in found[0].remedy
        await driver.close()

    async def test_a_quota_that_cannot_be_read_is_a_warning(self, aws: World) -> None:
        aws.ec2.faults.plan("ListServiceQuotas", Fault.UNAUTHORISED, times=ALWAYS)
        found = await wrong(aws.make())
        assert "servicequotas:ListServiceQuotas" in found["quota"]


class TestRights:
    """The document in docs/providers/aws.md is enough, and none of it is too much."""

    EVERYTHING = {"EXTERNAL_NETWORK_VIA_PODVM": "1", "USE_PUBLIC_IP": "1", "USE_PODVM_LAUNCHTEMPLATE": "1"}  # noqa: RUF012

    async def life(self, aws: World, driver: Provider, *, while_it_runs: str = "") -> None:
        """All that a driver does with a pod VM; the check says `while_it_runs` while there is one."""
        made = await driver.create(launch(volumes=(aws.ec2.make_volume("eu-west-1a"),)))
        await driver.console(made.id)
        await driver.list_owned(OWNER)
        await driver.state(made.id)
        found = [one.detail for one in await driver.check() if one.severity is not Severity.OK]
        assert found == ([while_it_runs] if while_it_runs else [])
        await driver.delete(made.id)

    async def test_the_document_is_enough_and_each_line_is_used(self, aws: World) -> None:
        aws.ec2.policy = policy = Policy.of_page()
        aws.ec2.delays.ending = 0.3  # addresses are held until the instance is gone
        aws.ec2.backend.create_launch_template("kata", "", {"ImageId": aws.ec2.ami}, {})
        driver = aws.make(**self.EVERYTHING)
        assert [one.detail for one in await driver.check() if one.severity is not Severity.OK] == []
        await self.life(aws, driver)
        await driver.close()
        assert policy.used == policy.listed

    async def test_the_narrowed_document_is_enough_too(self, aws: World) -> None:
        """Only what carries the cluster's tag may be touched; the fake holds each call against it."""
        aws.ec2.policy = Policy.of_page(narrowed=True)
        aws.ec2.delays.ending = 0.3
        settings = {"EXTERNAL_NETWORK_VIA_PODVM": "1", "USE_PUBLIC_IP": "1", "CAA_CLUSTER_ID": "prod-1"}
        driver = aws.make(**settings, AWS_RIGHTS_BY_TAG="true")
        found = [one for one in await driver.check() if one.severity is not Severity.OK]
        assert {one.detail.split()[0] for one in found} == {
            "ec2:TerminateInstances", "ec2:AttachVolume", "ec2:GetConsoleOutput", "ec2:AssociateAddress",
            "ec2:DisassociateAddress", "ec2:ReleaseAddress",
        }  # fmt: skip
        assert {one.severity for one in found} == {Severity.WARNING}
        owner = Owner(cluster="prod-1", node="n1")
        volume = aws.ec2.make_volume("eu-west-1a")
        made = await driver.create(launch(owner=owner, volumes=(volume,)))
        found = [one for one in await driver.check() if one.severity is not Severity.OK]
        assert "ec2:TerminateInstances" not in str(found), "there is one on which it can be proven now"
        await driver.delete(made.id)
        plain = aws.make()
        theirs = await plain.create(launch(owner=Owner(cluster="another", node="n1")))
        with pytest.raises(CredentialsError, match="TerminateInstances"):
            await driver.delete(theirs.id)
        aws.ec2.policy = None
        await plain.delete(theirs.id)
        await driver.close()
        await plain.close()

    @pytest.mark.parametrize("right", sorted(Policy.of_page().listed))
    async def test_a_right_that_is_missing_is_told_before_the_first_pod(self, aws: World, right: str) -> None:
        """By dry runs: nothing is made. One without which every pod fails is an error."""
        aws.ec2.policy = Policy(sorted(Policy.of_page().listed - {right}))
        aws.ec2.backend.create_launch_template("kata", "", {"ImageId": aws.ec2.ami}, {})
        driver = aws.make(**self.EVERYTHING)
        found = [one for one in await driver.check() if one.severity is not Severity.OK]
        assert right in " ".join(f"{one.detail} {one.remedy}" for one in found) or right.partition(":")[2] in str(found)
        severities = {one.severity for one in found}
        harmless = right in ("ec2:AttachVolume", "ec2:DescribeVolumes", "ec2:GetConsoleOutput")
        harmless |= right == "servicequotas:ListServiceQuotas"
        assert severities == {Severity.WARNING} if harmless else Severity.ERROR in severities
        assert aws.ec2.ledger.made == {}
        await driver.close()


class TestNode:
    """Instance metadata is asked only for what is missing."""

    MISSING = {"AWS_REGION": "", "AWS_SUBNET_ID": "", "AWS_SG_IDS": ""}  # noqa: RUF012

    async def test_what_is_missing_comes_from_the_node(self, aws: World) -> None:
        imds = Imds(region=aws.ec2.region, subnet=aws.ec2.subnets[1], groups=(aws.ec2.group,))
        with Wire(imds) as wire:
            driver = aws.make(**self.MISSING, AWS_EC2_METADATA_SERVICE_ENDPOINT=wire.url)
            made = await driver.create(launch())
            assert aws.ec2.last_launch()["NetworkInterface.1.SubnetId"] == aws.ec2.subnets[1]
            await driver.delete(made.id)
            await driver.close()
            assert wire.calls().count("PUT /latest/api/token") == 1

    async def test_nothing_missing_nothing_asked(self, aws: World) -> None:
        """There `mac` was asked for unconditionally: a slow start off EC2."""
        with Wire(Imds(region="x", subnet="x", groups=())) as wire:
            driver = aws.make(AWS_EC2_METADATA_SERVICE_ENDPOINT=wire.url)
            made = await driver.create(launch())
            await driver.delete(made.id)
            await driver.close()
            assert wire.calls() == []

    async def test_a_metadata_service_that_never_answers_holds_nothing_up(self, aws: World) -> None:
        """Off EC2 nobody may answer; with everything set nobody is asked, else it is two seconds and a clear error."""
        imds = Imds(region="x", subnet="x", groups=())
        imds.faults.plan("*", Fault.TIMEOUT, times=ALWAYS)
        with Wire(imds) as wire:
            driver = aws.make(AWS_SUBNET_ID="", AWS_EC2_METADATA_SERVICE_ENDPOINT=wire.url)
            begin = time.monotonic()
            with pytest.raises(Misconfigured, match="AWS_SUBNET_ID"):
                await driver.create(launch())
            assert time.monotonic() - begin < 6
            await driver.close()


def test_tags_that_ec2_refuses_are_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^TAGS: the key 'aws:x' is reserved"):
        providers.aws.make(load(providers.aws.SETTINGS, {"TAGS": "aws:x=1"}))
