"""Who `azure` is: every way to get a token, on the wire, exchanged while pods start; what is told when none comes."""

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from caa.errors import ConfigError, CredentialsError, Misconfigured, ProviderUnavailable, Throttled
from caa.model.ids import InstanceId
from caa.model.instance import Severity
from caa.provider.contract import Provider
from tests.fakes.azure.arm import TOKEN
from tests.fakes.azure.identity import Metadata
from tests.fakes.azure.world import OWNER, World, launch, world
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.wire import Wire

NO_SECRET = {"AZURE_CLIENT_ID": "", "AZURE_CLIENT_SECRET": "", "AZURE_TENANT_ID": ""}


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
def node(azure: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The metadata server of this node; the SDK knows its address from the environment alone."""
    with Wire(Metadata(azure.azure.identity)) as wire:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", wire.url)
        yield wire


@pytest.fixture
def federated(azure: World) -> Path:
    """The file with the service account's token, which alone is good."""
    file = azure.folder / "token"
    file.write_text("first-assertion")
    azure.azure.identity.secrets = {"first-assertion"}
    return file


def vanish(file: Path) -> None:
    file.unlink()


def exchange(azure: World, file: Path) -> None:
    """From now on another assertion is good, and it is in the file."""
    file.write_text("second-assertion")
    azure.azure.identity.secrets = {"second-assertion"}


async def life(driver: Provider) -> None:
    """One pod VM."""
    made = await driver.create(launch())
    await driver.delete(made.id)


async def test_the_node_has_a_managed_identity(azure: World, node: Wire) -> None:
    """The token is asked for once, and again when Azure takes it no longer."""
    azure.azure.identity.assigned = {""}
    one = azure.make(**NO_SECRET)
    await life(one)
    assert len(node.calls()) == 1
    azure.azure.identity.revoke()
    await life(one)
    assert len(node.calls()) == 2
    assert TOKEN not in azure.wire.calls()
    await one.close()


async def test_a_managed_identity_among_several_is_named_by_its_client_id(azure: World, node: Wire) -> None:
    azure.azure.identity.assigned = {"pods-id", "other-id"}
    one = azure.make(**NO_SECRET | {"AZURE_CLIENT_ID": "pods-id"})
    await life(one)
    assert {noted.request.query["client_id"] for noted in node.journal} == {"pods-id"}
    await one.close()
    other = azure.make(**NO_SECRET | {"AZURE_CLIENT_ID": "foreign-id"})
    with pytest.raises(CredentialsError, match=r"no token: .*has not been assigned.*AZURE_CLIENT_ID") as caught:
        await other.list_owned(OWNER)
    assert "\n" not in str(caught.value)
    await other.close()


async def test_a_workload_identity_is_exchanged_while_a_pod_starts(azure: World, federated: Path) -> None:
    """Another token is in the file, and Azure no longer takes the old one: the start under way goes on."""
    azure.azure.delays.nic = azure.azure.delays.power = 0.5
    one = azure.make(AZURE_CLIENT_SECRET="", AZURE_FEDERATED_TOKEN_FILE=str(federated))
    starting = asyncio.ensure_future(one.create(launch()))
    await asyncio.to_thread(azure.azure.began.wait)
    exchange(azure, federated)
    azure.azure.identity.revoke()
    made = await starting
    assert azure.azure.ledger.made["vm"] == 1
    asked = [noted.request.form for noted in azure.wire.journal if noted.call == TOKEN]
    assert [form["client_assertion"] for form in asked] == ["first-assertion", "second-assertion"]
    await one.delete(made.id)
    await one.close()


async def test_a_token_that_runs_out_is_replaced_before_azure_says_so(azure: World, federated: Path) -> None:
    azure.azure.identity.seconds = 1
    one = azure.make(AZURE_CLIENT_SECRET="", AZURE_FEDERATED_TOKEN_FILE=str(federated))
    await one.list_owned(OWNER)
    exchange(azure, federated)
    await asyncio.sleep(1.1)
    await one.list_owned(OWNER)
    await one.close()


async def test_a_workload_identity_that_azure_does_not_know(azure: World, federated: Path) -> None:
    azure.azure.identity.secrets = set()
    one = azure.make(AZURE_CLIENT_SECRET="", AZURE_FEDERATED_TOKEN_FILE=str(federated))
    with pytest.raises(CredentialsError, match=r"AADSTS7000215.*AZURE_CLIENT_ID") as caught:
        await one.list_owned(OWNER)
    assert "assertion" not in str(caught.value)
    vanish(federated)
    with pytest.raises(CredentialsError, match=r"token cannot be read.*AZURE_FEDERATED_TOKEN_FILE"):
        await one.list_owned(OWNER)
    await one.close()


async def test_a_service_principal_signs_with_its_certificate(azure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the SDK's own chain, which reads the environment."""
    certificate, pem = _certificate()
    azure.azure.identity.certificates, azure.azure.identity.secrets = [certificate], set()
    file = azure.folder / "principal.pem"
    file.write_bytes(pem)
    for key, value in {
        "AZURE_CLIENT_CERTIFICATE_PATH": str(file),
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": azure.azure.site.tenant,
    }.items():
        monkeypatch.setenv(key, value)
    one = azure.make(AZURE_CLIENT_SECRET="")
    await life(one)
    await one.close()


async def test_a_secret_is_exchanged_while_pods_run(azure: World) -> None:
    """AZURE_CLIENT_SECRET is live: a driver with the new one follows, and works on what the one before made."""
    before = azure.make()
    made = await before.create(launch())
    azure.azure.identity.secrets = {"another"}
    azure.azure.identity.revoke()
    with pytest.raises(CredentialsError, match=r"no token: .*AZURE_CLIENT_SECRET"):
        await before.list_owned(OWNER)
    after = azure.make(AZURE_CLIENT_SECRET="another")
    assert [found.id for found in await after.list_owned(OWNER)] == [made.id]
    await after.delete(made.id)
    await before.close()
    await after.close()


@pytest.mark.parametrize(
    ("cloud", "audience"),
    [
        ("AzureUSGovernment", "https://management.usgovcloudapi.net"),
        ("AzureChinaCloud", "https://management.chinacloudapi.cn"),
    ],
)
async def test_tokens_are_for_the_cloud_that_is_set(azure: World, cloud: str, audience: str) -> None:
    azure.azure.identity.audience = audience
    one = azure.make(AZURE_CLOUD=cloud)
    await life(one)
    await one.close()
    wrong = azure.make()
    with pytest.raises(CredentialsError, match="AADSTS70011"):
        await wrong.list_owned(OWNER)
    await wrong.close()


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.CAPACITY, Fault.TIMEOUT, Fault.RESET, Fault.MALFORMED])
async def test_an_authority_that_is_busy_or_broken_is_asked_again(azure: World, fault: Fault) -> None:
    """CAPACITY stands for its 503. That it does not answer for once is no wrong credential."""
    azure.waits = type(azure.waits)(read_timeout=0.3)
    one = azure.make()
    azure.azure.faults.plan(TOKEN, fault)
    assert await one.list_owned(OWNER) == []
    azure.azure.identity.revoke()
    azure.azure.faults.plan(TOKEN, fault, times=ALWAYS)
    with pytest.raises((Throttled, ProviderUnavailable)):
        await one.console(InstanceId(f"{azure.azure.site.base}/Microsoft.Compute/virtualMachines/podvm-nobody"))
    azure.calm()
    await one.close()


async def test_no_secret_is_in_an_error_or_a_log(azure: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one = azure.make(AZURE_CLIENT_SECRET="hunter2-wrong")
    findings = await one.check()
    assert [found.severity for found in findings] == [Severity.ERROR]
    assert "hunter2" not in str(findings)
    await one.close()
    two = azure.make()
    await life(two)
    await two.close()
    told = caplog.text
    assert "virtualMachines" in told, "the SDK tells its calls at this level"
    assert "hunter2" not in told
    assert not [token for token in azure.azure.identity.tokens if token in told]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"AZURE_TENANT_ID": ""}, "AZURE_CLIENT_SECRET is set: set AZURE_CLIENT_ID and AZURE_TENANT_ID"),
        (NO_SECRET | {"AZURE_FEDERATED_TOKEN_FILE": "/token"}, "AZURE_FEDERATED_TOKEN_FILE is set: set AZURE_CLIENT"),
    ],
)
async def test_half_of_an_identity_is_refused_at_the_start(azure: World, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        azure.make(**settings)


def _certificate() -> tuple[x509.Certificate, bytes]:
    """A certificate of a service principal, and it with its key as the SDK wants them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peerpods")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    made = built.sign(key, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made, secret + made.public_bytes(Encoding.PEM)


async def test_an_empty_key_of_the_environment_is_no_secret(
    azure: World, node: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ConfigMap's keys are all there, and empty where they are not used; the SDK reads some of them by itself."""
    azure.azure.identity.assigned = {""}
    for key in NO_SECRET:
        monkeypatch.setenv(key, "")
    driver = azure.make(**NO_SECRET)
    assert await driver.list_owned(OWNER) == []
    assert node.calls()
    await driver.close()


@pytest.mark.parametrize("file", ["/nowhere", "/etc/hostname"])
async def test_a_certificate_that_is_none_is_named(azure: World, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    for key, value in (("CLIENT_ID", "client"), ("TENANT_ID", "tenant"), ("CLIENT_CERTIFICATE_PATH", file)):
        monkeypatch.setenv(f"AZURE_{key}", value)
    driver = azure.make(**NO_SECRET)
    with pytest.raises(CredentialsError, match=r"no token: .*AZURE_CLIENT_CERTIFICATE_PATH"):
        await driver.list_owned(OWNER)
    await driver.close()


@pytest.mark.parametrize(
    ("bundle", "told"),
    [("/nowhere", "AZURE_CA_BUNDLE: /nowhere has no cert"), ("/etc/hostname", "AZURE_CA_BUNDLE: "), ("", "CA_BUNDLE")],
)
async def test_certificates_that_do_not_do_are_named(azure: World, bundle: str, told: str) -> None:
    driver = azure.make(AZURE_CA_BUNDLE=bundle)
    with pytest.raises((Misconfigured, ProviderUnavailable), match=told):
        await driver.list_owned(OWNER)
    await driver.close()
