"""Who gets tokens of the fake Azure, by the official SDK's blocking credentials, which the driver does not use."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    ClientSecretCredential,
    CredentialUnavailableError,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from tests.fakes.azure.identity import Metadata
from tests.fakes.azure.world import World, world
from tests.fakes.wire import Wire

SCOPE = "https://management.azure.com/.default"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with asyncio.Runner() as runner:
        made = world(tmp_path)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def node(azure: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with Wire(Metadata(azure.azure.identity)) as wire:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", wire.url)
        yield wire


def options(azure: World) -> dict[str, Any]:
    return {
        "authority": azure.wire.url,
        "disable_instance_discovery": True,
        "connection_verify": str(azure.ca),
        "retry_total": 0,
    }


def test_a_managed_identity(azure: World, node: Wire) -> None:
    azure.azure.identity.assigned = {"", "own"}
    for named in ({}, {"client_id": "own"}):
        with ManagedIdentityCredential(**named) as credential:
            token = credential.get_token(SCOPE).token
            assert azure.azure.identity.is_good(f"Bearer {token}")
    azure.azure.identity.revoke()
    assert not azure.azure.identity.is_good(f"Bearer {token}")
    with (
        ManagedIdentityCredential(client_id="foreign") as credential,
        pytest.raises(CredentialUnavailableError, match="Identity not found"),
    ):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(("query", "header"), [("resource=x", "true"), ("api-version=1", "")])
def test_the_metadata_server_wants_its_header_and_a_version(azure: World, node: Wire, query: str, header: str) -> None:
    azure.azure.identity.assigned = {""}
    asked = urllib.request.Request(f"{node.url}/metadata/identity/oauth2/token?{query}")
    asked.add_header("Metadata", header)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)
    with caught.value as error:
        assert (error.code, json.load(error)["error"]) == (400, "invalid_request")


def test_a_workload_identity(azure: World) -> None:
    file = azure.folder / "token"
    file.write_text("assertion")
    azure.azure.identity.secrets = {"assertion"}
    named = {"tenant_id": azure.azure.site.tenant, "client_id": "client", "token_file_path": str(file)}
    with WorkloadIdentityCredential(**named, **options(azure)) as credential:
        assert azure.azure.identity.is_good(f"Bearer {credential.get_token(SCOPE).token}")
    azure.azure.identity.secrets = set()
    with (
        WorkloadIdentityCredential(**named, **options(azure)) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"tenant_id": "other"}, "Unable to get authority configuration"),
        ({"client_id": "other"}, "AADSTS700016"),
        ({"client_secret": "other"}, "AADSTS7000215"),
        ({"scope": "https://vault.azure.net/.default"}, "AADSTS70011"),
    ],
)
def test_who_is_not_who_they_say(azure: World, named: dict[str, str], words: str) -> None:
    good = {"tenant_id": azure.azure.site.tenant, "client_id": "client", "client_secret": "secret", "scope": SCOPE}
    whole = good | named
    scope = whole.pop("scope")
    with (
        ClientSecretCredential(**whole, **options(azure)) as credential,
        pytest.raises((ClientAuthenticationError, ValueError), match=words),
    ):
        credential.get_token(scope)
