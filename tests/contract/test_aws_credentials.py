"""Credentials of every kind, over the wire: static keys, files, IRSA, Pod Identity; exchanged while pods run."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from caa.errors import ConfigError, CredentialsError, Misconfigured
from caa.provider.contract import Provider
from tests.fakes.aws.identity import PodIdentity
from tests.fakes.aws.imds import Imds
from tests.fakes.aws.world import World, launch, world
from tests.fakes.wire import Wire


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own."""
    for key in list(os.environ):
        if key.startswith("AWS_"):
            monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def keyless(aws: World) -> Provider:
    """A driver without a static key: the SDK's chain is asked. Only keys that AWS gave out are accepted."""
    aws.ec2.keys = Given(aws)  # type: ignore[assignment]
    return aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")


class Given:
    """The keys that AWS gave out, as a set."""

    def __init__(self, aws: World) -> None:
        self._identity = aws.ec2.identity

    def __contains__(self, key: str) -> bool:
        return key in self._identity.given


async def come_and_go(driver: Provider, *names: str) -> None:
    """Pods that start and stop at the same time."""
    made = await asyncio.gather(*(driver.create(launch(name)) for name in names))
    await asyncio.gather(*(driver.delete(one.id) for one in made))


async def test_none_at_all(aws: World) -> None:
    driver = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        await driver.create(launch())
    await driver.close()


def test_half_a_key(aws: World) -> None:
    with pytest.raises(ConfigError, match="set both of them"):
        aws.make(AWS_SECRET_ACCESS_KEY="")


async def test_a_shared_file_is_exchanged_in_mid_run(aws: World, tmp_path: Path) -> None:
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


async def test_a_profile_of_the_shared_file(aws: World, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[caa]\naws_access_key_id = AKIACAA\naws_secret_access_key = x\n")
    aws.ec2.keys = {"AKIACAA"}
    driver = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", flags={"aws-profile": "caa"})
    await come_and_go(driver, "podvm-web-00000001")
    await driver.close()
    unknown = aws.make(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", flags={"aws-profile": "nobody"})
    with pytest.raises(Misconfigured, match="--aws-profile"):
        await unknown.create(launch())
    await unknown.close()


async def test_secrets_are_in_no_message(aws: World) -> None:
    aws.ec2.keys = set()
    driver = aws.make(AWS_SECRET_ACCESS_KEY="hunter2hunter2", AWS_SESSION_TOKEN="tokentoken")
    with pytest.raises(CredentialsError) as caught:
        await driver.create(launch())
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert "tokentoken" not in f"{caught.value!r} {caught.value.__cause__!r}"
    await driver.close()


class TestIrsa:
    """A service account's token for a role's credentials (AssumeRoleWithWebIdentity)."""

    @pytest.fixture
    def token(self, aws: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """The file that EKS keeps new."""
        path = tmp_path / "token"
        path.write_text("web-1")
        aws.ec2.identity.tokens = {"web-1"}
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/caa")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(path))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.wire.url)
        return path

    async def test_a_whole_life(self, aws: World, token: Path) -> None:
        driver = keyless(aws)
        await come_and_go(driver, "podvm-web-00000001")
        asked = next(one.request.form for one in aws.wire.journal if one.call == "AssumeRoleWithWebIdentity")
        assert asked["WebIdentityToken"] == "web-1"
        assert asked["RoleArn"].endswith("role/caa")
        await driver.close()

    async def test_the_credentials_are_withdrawn_while_pods_come_and_go(self, aws: World, token: Path) -> None:
        """However many calls are refused at the same moment, each is sent again with the new credentials."""
        driver = keyless(aws)
        made = await driver.create(launch())
        await asyncio.to_thread(token.write_text, "web-2")
        aws.ec2.identity.tokens = {"web-2"}
        aws.ec2.identity.revoke()
        await come_and_go(driver, *(f"podvm-web-{number:08x}" for number in range(1, 21)))
        await driver.delete(made.id)
        assert all(key.startswith("ASIAWEB") for key in aws.ec2.identity.given)
        await driver.close()

    async def test_credentials_that_end_soon_are_renewed_without_a_refusal(self, aws: World, token: Path) -> None:
        aws.ec2.identity.lifetime = 60.0  # below the SDK's own margin: it asks anew each time
        driver = keyless(aws)
        await come_and_go(driver, "podvm-web-00000001")
        assert len(aws.ec2.identity.given) > 1
        await driver.close()

    async def test_a_token_that_sts_refuses_is_told(self, aws: World, token: Path) -> None:
        aws.ec2.identity.tokens = {"another"}
        driver = keyless(aws)
        with pytest.raises(CredentialsError, match="AWS_WEB_IDENTITY_TOKEN_FILE") as caught:
            await driver.create(launch())
        assert "web-1" not in str(caught.value)
        await driver.close()


class TestPodIdentity:
    """EKS Pod Identity: an agent on the node gives credentials for the pod's token (the container endpoint)."""

    @pytest.fixture
    def agent(self, aws: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PodIdentity]:
        made = PodIdentity(aws.ec2.identity)
        made.tokens = {"pod-1"}
        (tmp_path / "pod-token").write_text("pod-1")
        with Wire(made) as wire:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{wire.url}/v1/credentials")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "pod-token"))
            yield made

    async def test_a_whole_life(self, aws: World, agent: PodIdentity) -> None:
        driver = keyless(aws)
        await come_and_go(driver, "podvm-web-00000001")
        assert {key[:7] for key in aws.ec2.identity.given} == {"ASIAPOD"}
        await driver.close()

    async def test_token_and_credentials_are_exchanged_while_pods_come_and_go(
        self, aws: World, agent: PodIdentity, tmp_path: Path
    ) -> None:
        driver = keyless(aws)
        made = await driver.create(launch())
        (tmp_path / "pod-token").write_text("pod-2")
        agent.tokens = {"pod-2"}
        aws.ec2.identity.revoke()
        await come_and_go(driver, *(f"podvm-web-{number:08x}" for number in range(1, 21)))
        await driver.delete(made.id)
        await driver.close()

    async def test_a_token_that_the_agent_refuses_is_told(self, aws: World, agent: PodIdentity) -> None:
        agent.tokens = set()
        driver = keyless(aws)
        with pytest.raises(CredentialsError, match="role") as caught:
            await driver.create(launch())
        assert "pod-1" not in str(caught.value)
        await driver.close()


class TestInstanceProfile:
    """The node's own role, from its instance metadata (version 2)."""

    @pytest.fixture
    def imds(self, aws: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
        """The metadata service of a node with a role."""
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        made = Imds(region="eu-west-1", subnet="", groups=(), identity=aws.ec2.identity)
        with Wire(made) as wire:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", wire.url)
            yield wire

    async def test_a_whole_life_and_a_withdrawal(self, aws: World, imds: Wire) -> None:
        driver = keyless(aws)
        await come_and_go(driver, "podvm-web-00000001")
        aws.ec2.identity.revoke()
        await come_and_go(driver, *(f"podvm-web-{number:08x}" for number in range(2, 12)))
        assert {key[:8] for key in aws.ec2.identity.given} == {"ASIANODE"}
        await driver.close()


async def test_a_static_key_is_exchanged_in_mid_run(aws: World) -> None:
    """The node makes a new driver of the changed settings; what the old one made is the new one's."""
    aws.ec2.keys = {"AKIATEST"}
    old = aws.make()
    made = await old.create(launch())
    aws.ec2.keys = {"AKIANEXT"}
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        await old.state(made.id)
    new = aws.make(AWS_ACCESS_KEY_ID="AKIANEXT")
    await new.delete(made.id)
    await old.close()
    await new.close()
