"""Every kind of credentials, for every client, on the wire; and each exchanged while the node runs."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from caa.errors import CredentialsError
from caa.model.instance import Severity
from tests.fakes.gcp.identity import aws_federation_file, federation_file, key_file
from tests.fakes.gcp.world import World, launch, world

ACCESS_KEY = "AKIAEXAMPLE"
EVERY_CLIENT = {
    "instances.insert", "instances.aggregatedList", "instances.delete", "zoneOperations.wait", "machineTypes.list",
    "images.get", "zones.get", "regions.get", "disks.get", "disks.aggregatedList", "subnetworks.get",
    "networks.getEffectiveFirewalls", "projects.testIamPermissions", "tagValues.getNamespaced",
}  # fmt: skip


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's gcloud nor its variables; no metadata server is seen."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)


class Given:
    """Credentials of one kind, how they come to the driver, and how they are exchanged."""

    def __init__(self, gcp: World, patch: pytest.MonkeyPatch) -> None:
        self.gcp, self.patch, self.identity = gcp, patch, gcp.google.identity
        self.token, self.file = gcp.folder / "token", gcp.folder / "adc.json"
        self.token.write_text("cluster-token-1")

    def key(self, number: int) -> str:
        """A service account's key as a setting."""
        self.identity.keys = {number}
        return key_file(self.gcp.wire.url, number)

    def key_in_a_file(self, number: int) -> str:
        return self._in_a_file(self.key(number))

    def federation(self, number: int) -> str:
        """Workload identity federation with the cluster's token."""
        self._exchange(number)
        return federation_file(self.gcp.wire.url, str(self.token))

    def federation_in_a_file(self, number: int) -> str:
        return self._in_a_file(self.federation(number))

    def impersonation(self, number: int) -> str:
        self._exchange(number)
        return federation_file(self.gcp.wire.url, str(self.token), impersonate=True)

    def aws(self, number: int) -> str:
        """A node in AWS that proves who it is there."""
        self.patch.setenv("AWS_ACCESS_KEY_ID", f"{ACCESS_KEY}{number}")
        self.patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        self.patch.setenv("AWS_REGION", "eu-central-1")
        self.identity.subjects = {f"{ACCESS_KEY}{number}"}
        return aws_federation_file(self.gcp.wire.url)

    def metadata(self, number: int) -> str:
        """GKE workload identity, or the node's own service account: no key anywhere."""
        self.patch.setenv("GCE_METADATA_IP", self.gcp.wire.url.removeprefix("http://"))
        return ""

    def _exchange(self, number: int) -> None:
        self.token.write_text(f"cluster-token-{number}")
        self.identity.subjects = {f"cluster-token-{number}"}

    def _in_a_file(self, text: str) -> str:
        self.file.write_text(text)
        self.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(self.file))
        return ""


KINDS: list[tuple[Callable[[Given, int], str], set[str]]] = [
    (Given.key, {"key"}),
    (Given.key_in_a_file, {"key"}),
    (Given.federation, {"federation"}),
    (Given.federation_in_a_file, {"federation"}),
    (Given.impersonation, {"federation", "impersonation"}),
    (Given.aws, {"federation"}),
    (Given.metadata, {"metadata"}),
]


@pytest.mark.parametrize(("kind", "servers"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
async def test_every_client_has_them(
    gcp: World, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Given, int], str], servers: set[str]
) -> None:
    """There was one client with credentials in the reference; here all have the same (providers.md 1.3, 5.2)."""
    one = gcp.make(GCP_CREDENTIALS=kind(Given(gcp, monkeypatch), 1), TAGS="team=blue")
    assert [found for found in await one.check() if found.severity is Severity.ERROR] == []
    volume = gcp.cloud.make_disk("europe-west3-a", "pvc-1")
    made = await one.create(launch(volumes=(volume,)))
    await one.delete(made.id)
    assert set(gcp.wire.calls()) >= EVERY_CLIENT
    assert set(gcp.google.identity.given) <= servers  # a key signs its own tokens where it may
    await one.close()


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS], ids=[kind.__name__ for kind, _ in KINDS])
async def test_they_are_exchanged_while_the_node_runs(
    gcp: World, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Given, int], str]
) -> None:
    """What was valid is withdrawn, tokens too, between two pods; a changed setting makes another driver."""
    given = Given(gcp, monkeypatch)
    one = gcp.make(GCP_CREDENTIALS=kind(given, 1), TAGS="team=blue")
    first = await one.create(launch())
    again = kind(given, 2)
    gcp.google.identity.revoke()
    if kind is Given.key:
        await one.close()
        one = gcp.make(GCP_CREDENTIALS=again, TAGS="team=blue")
    second = await one.create(launch("podvm-web-99999999"))
    for each in (first, second):
        await one.delete(each.id)
    await one.close()


async def test_none_at_all_is_told(gcp: World) -> None:
    one = gcp.make(GCP_CREDENTIALS="")
    (found,) = await one.check()
    assert (found.severity, found.subject) == (Severity.ERROR, "permissions")
    assert "set GCP_CREDENTIALS, or give the node" in found.detail
    await one.close()


async def test_a_withdrawn_key_is_told_and_not_shown(gcp: World) -> None:
    one = gcp.make()
    gcp.google.identity.keys = set()
    with pytest.raises(CredentialsError, match="GCP_CREDENTIALS") as caught:
        await one.create(launch())
    assert "PRIVATE KEY" not in str(caught.value)
    await one.close()


@pytest.mark.parametrize(
    "broken",
    [
        {"private_key": "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"},
        {"private_key": None},
        {"client_email": None},
        {"token_uri": None},
        {"type": "external_account"},
        {"type": "external_account", "credential_source": {"executable": {"command": "/bin/s3cret"}}},
        {"type": "authorized_user"},
    ],
    ids=str,
)
async def test_broken_ones_are_told_as_such_and_not_shown(gcp: World, broken: dict[str, object]) -> None:
    """And no program is ever run for them."""
    info = {key: value for key, value in (json.loads(key_file(gcp.wire.url)) | broken).items() if value is not None}
    one = gcp.make(GCP_CREDENTIALS=json.dumps(info))
    with pytest.raises(CredentialsError, match="GCP_CREDENTIALS is not complete or not valid") as caught:
        await one.create(launch())
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    await one.close()
