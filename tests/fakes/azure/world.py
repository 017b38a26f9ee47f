"""A fake Azure with the driver over it, for tests: one object to ask, and an empty ledger at the end."""

import datetime
import functools
import ipaddress
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import providers.azure
from providers.azure.around import Waits
from tests.fakes import world as any_cloud
from tests.fakes.azure.arm import Azure
from tests.fakes.azure.role import Role
from tests.fakes.azure.rules import Site
from tests.fakes.wire import Wire
from tests.fakes.world import OWNER, launch

__all__ = ["OWNER", "World", "launch", "plain", "world"]


class World(any_cloud.World):
    """`azure` is the cloud."""

    driver = providers.azure

    def __init__(self, folder: Path, azure: Azure, wire: Wire) -> None:
        super().__init__(folder, wire)
        self.azure, self.faults, self.ledger = azure, azure.faults, azure.ledger
        self.waits = Waits(read_timeout=2.0)
        self.ca = folder / "ca.pem"

    def settings(self) -> Mapping[str, str]:
        return reached(self.azure.site, self.wire.url, ca=self.ca)

    def loaded(self) -> dict[str, str]:
        """Every setting that changes the body of a PUT."""
        base = self.azure.site.base
        return {
            "USE_PUBLIC_IP": "true",
            "EXTERNAL_NETWORK_VIA_PODVM": "true",
            "AZURE_ZONE": "2",
            "ROOT_VOLUME_SIZE": "64",
            "TAGS": "team=red,cost=42",
            "ENABLE_SECURE_BOOT": "true",
            "AZURE_CVM_ENCRYPTION": "DiskWithVMGuestState",
            "AZURE_DISK_ENCRYPTION_SET": f"{base}/Microsoft.Compute/diskEncryptionSets/keys",
            "AZURE_VM_IDENTITIES": f"{base}/Microsoft.ManagedIdentity/userAssignedIdentities/pod",
            "AZURE_IMAGE_ID": "/CommunityGalleries/cococommunity-42/images/podvm/versions/1.0.0",
            "PURCHASE_OPTIONS": "spot",
            "SSH_USERNAME": "core",
        }

    def puts(self) -> list[Any]:
        """The bodies of all PUTs of VMs so far."""
        calls = [one for one in self.wire.journal if one.call == "VirtualMachines.CreateOrUpdate"]
        return [json.loads(one.request.body) for one in calls]

    def plain(self, text: str) -> str:
        return plain(text, self)

    def settle(self) -> None:
        self.azure.estate.advance()

    def calm(self) -> None:
        super().calm()
        self.azure.half_made = self.azure.reserved = 0


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world whose ledger is empty when the block ends."""
    azure = Azure(Role.of_page())
    with Wire(azure, tls=certified(folder)) as wire:
        made = World(folder, azure, wire)
        async with aclosing(made):
            yield made
        made.nothing_left()


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
