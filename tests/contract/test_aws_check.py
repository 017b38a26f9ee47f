"""What `check` finds, the rights of the documentation, credentials of every kind, facts of the node."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

import providers.aws
from caa.config.load import load
from caa.errors import ConfigError, CredentialsError, ProviderError
from caa.model.instance import Severity
from caa.provider.contract import Provider
from tests.fakes.aws.imds import Imds
from tests.fakes.aws.policy import Policy
from tests.fakes.aws.world import OWNER, World, launch, world
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

    async def test_nothing_is_wrong_and_nothing_is_made(self, aws: World) -> None:
        assert await wrong(aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")) == {}
        assert aws.ec2.ledger.made == {}


class TestRights:
    """The document in docs/providers/aws.md is enough, and none of it is too much."""

    async def test_the_document_is_enough_and_each_line_is_used(self, aws: World) -> None:
        aws.ec2.policy = policy = Policy.of_page()
        aws.ec2.delays.ending = 0.3  # addresses are held until the instance is gone
        aws.ec2.backend.create_launch_template("kata", "", {"ImageId": aws.ec2.ami}, {})
        everything = {
            "EXTERNAL_NETWORK_VIA_PODVM": "true",
            "USE_PUBLIC_IP": "true",
            "USE_PODVM_LAUNCHTEMPLATE": "true",
        }
        driver = aws.make(**everything)
        assert await wrong(driver) == {}
        made = await driver.create(launch(volumes=(aws.ec2.make_volume("eu-west-1a"),)))
        await driver.console(made.id)
        await driver.list_owned(OWNER)
        await driver.state(made.id)
        await driver.delete(made.id)
        await driver.close()
        assert policy.used == policy.listed

    async def test_a_right_that_is_missing_is_told(self, aws: World) -> None:
        page = Policy.of_page()
        for right in sorted(page.listed - {"ec2:DescribeVolumes", "ec2:DescribeLaunchTemplateVersions"}):
            aws.ec2.policy = Policy(sorted(page.listed - {right}))
            driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")
            with suppress(ProviderError):
                made = await driver.create(launch(volumes=(aws.ec2.make_volume("eu-west-1a"),)))
                assert right in ("ec2:AttachVolume",) or made
                await driver.delete(made.id)
            aws.ec2.policy = None
            await aws.swept(driver)
            await driver.close()


class TestCredentials:
    """The SDK's whole chain, static keys, exchange in mid-run."""

    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for key in list(os.environ):
            if key.startswith("AWS_"):
                monkeypatch.delenv(key)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    async def test_none_at_all(self, aws: World) -> None:
        driver = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
            await driver.create(launch())
        await driver.close()

    def test_half_a_key(self, aws: World) -> None:
        with pytest.raises(ConfigError, match="set both of them"):
            aws.make(AWS_SECRET_ACCESS_KEY="")

    async def test_irsa(self, aws: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("a.b.c")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/caa")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.wire.url)
        aws.ec2.keys = {"ASIAWEB"}
        driver = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        made = await driver.create(launch())
        await driver.delete(made.id)
        await driver.close()
        assert "AssumeRoleWithWebIdentity" in aws.wire.calls()

    async def test_a_shared_file_is_exchanged_in_mid_run(self, aws: World, tmp_path: Path) -> None:
        file = tmp_path / "credentials"
        file.write_text("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = x\n")
        aws.ec2.keys = {"AKIAOLD"}
        driver = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        made = await driver.create(launch())
        file.write_text("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = x\n")
        aws.ec2.keys = {"AKIANEW"}
        again = await driver.create(launch("podvm-web-11111111"))
        for one in (made, again):
            await driver.delete(one.id)
        await driver.close()

    async def test_secrets_are_in_no_message(self, aws: World) -> None:
        aws.ec2.keys = set()
        driver = aws.make(AWS_SECRET_ACCESS_KEY="hunter2hunter2", AWS_SESSION_TOKEN="tokentoken")
        with pytest.raises(CredentialsError) as caught:
            await driver.create(launch())
        assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
        assert "tokentoken" not in f"{caught.value!r} {caught.value.__cause__!r}"
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


def test_tags_that_ec2_refuses_are_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^TAGS: the key 'aws:x' is reserved"):
        providers.aws.make(load(providers.aws.SETTINGS, {"TAGS": "aws:x=1"}))
