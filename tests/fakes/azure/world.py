"""A fake Azure with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import asyncio
import datetime
import functools
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import providers.azure
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner
from caa.provider.contract import Provider
from caa.testing.clock import ScaledClock
from providers.azure.around import Waits
from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.rules import Site
from tests.fakes.wire import Wire

OWNER = Owner(cluster="c1", node="n1")
SPEED = 50.0  # how much faster than the world's clock the driver's runs


class World:
    """`azure` is the cloud, `wire` its port, `make` gives drivers."""

    def __init__(self, folder: Path, azure: Azure, wire: Wire) -> None:
        self.folder, self.azure, self.wire = folder, azure, wire
        self.waits = Waits(read_timeout=2.0)
        self.ca = folder / "ca.pem"

    def environ(self, **other: str) -> dict[str, str]:
        """The settings of a node in this cloud; "" takes one away."""
        found = {
            **reached(self.azure.site, self.wire.url, ca=self.ca),
            "CAA_CATALOGUE_DIR": str(self.folder / "catalogue"),
            "CLOUD_CALLS_PER_SECOND": "100",
            **other,
        }
        return {key: value for key, value in found.items() if value}

    def make(self, **other: str) -> Provider:
        """A driver with these settings; what is set twice is the latter."""
        values = load((*NODE_ROWS, *providers.azure.SETTINGS), self.environ(**other))
        return providers.azure.make(values, clock=ScaledClock(SPEED), waits=self.waits)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.azure.faults.clear()
        self.azure.half_made = 0

    async def swept(self, driver: Provider) -> list[str]:
        """Remove what is owned, as the sweep of the node does, and prove that nothing is left. Returns the ids."""
        self.calm()
        found = [str(one.id) for one in await driver.list_owned(OWNER)]
        await asyncio.gather(*(driver.delete(one.id) for one in await driver.list_owned(OWNER)))
        assert not self.azure.ledger, str(self.azure.ledger)
        return found


def launch(name: str = "podvm-web-0a1b2c3d", **other: object) -> LaunchRequest:
    """A launch request of a pod."""
    fields: Mapping[str, object] = {
        "name": name,
        "sandbox": SandboxId(f"sandbox-{name[-8:]}"),
        "owner": OWNER,
        "token": f"token-{name[-8:]}",
        "user_data": b"#cloud-config\n",
        "namespace": "shop",
        "pod": "web",
        **other,
    }
    return LaunchRequest(**fields)  # type: ignore[arg-type]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    azure = Azure(Role.of_page())
    with Wire(azure, tls=certified(folder)) as wire:
        yield World(folder, azure, wire)
        azure.estate.advance()
        assert not azure.ledger, str(azure.ledger)


def reached(site: Site, url: str, *, ca: Path) -> dict[str, str]:
    """The settings that reach a fake Azure at this URL."""
    return {
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": "secret",
        "AZURE_TENANT_ID": site.tenant,
        "AZURE_SUBSCRIPTION_ID": site.subscription,
        "AZURE_REGION": site.region,
        "AZURE_RESOURCE_GROUP": site.group,
        "AZURE_SUBNET_ID": site.subnet,
        "AZURE_NSG_ID": site.nsg,
        "AZURE_IMAGE_ID": site.image,
        "AZURE_RESOURCE_MANAGER_ENDPOINT": url,
        "AZURE_AUTHORITY_HOST": url,
        "AZURE_CA_BUNDLE": str(ca),
    }


def certified(folder: Path) -> ssl.SSLContext:
    """TLS for the loopback; its authority is `ca.pem` in the folder."""
    (folder / "ca.pem").write_bytes(_pem()[0])
    (folder / "server.pem").write_bytes(b"".join(_pem()))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    return tls


def plain(text: str, world: World) -> str:
    """A text of this world without what differs from run to run."""
    text = text.replace(world.wire.url, "https://azure").replace(world.azure.site.subscription, "SUBSCRIPTION")
    text = re.sub(r"127\.0\.0\.1:\d+", "azure", text)
    text = re.sub(r"(net1?(-ip)?)-[0-9a-f]{8}", r"\1-N", text)
    return re.sub(r"ssh-ed25519 [A-Za-z0-9+/=]+", "ssh-ed25519 KEY", text)


@functools.cache
def _pem() -> tuple[bytes, bytes]:
    """A certificate for the loopback, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake azure")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    certificate = built.sign(key, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), secret
