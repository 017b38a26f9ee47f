"""What the fake Azure refuses, and lists, besides shapes: by the official SDK in ways that the driver does not use."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient

from tests.fakes.azure.quota import family
from tests.fakes.azure.world import World, world

RG = "pods"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with asyncio.Runner() as runner:
        made = world(tmp_path)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def compute(azure: World) -> Iterator[ComputeManagementClient]:
    with _credential(azure) as credential, ComputeManagementClient(credential, **_options(azure)) as client:
        yield client


def _credential(azure: World) -> ClientSecretCredential:
    options: dict[str, Any] = {"disable_instance_discovery": True, "connection_verify": str(azure.ca)}
    return ClientSecretCredential(azure.azure.site.tenant, "client", "secret", authority=azure.wire.url, **options)


def _options(azure: World) -> dict[str, Any]:
    return {
        "subscription_id": azure.azure.site.subscription,
        "base_url": azure.wire.url,
        "credential_scopes": ["https://management.azure.com/.default"],
        "connection_verify": str(azure.ca),
        "retry_total": 0,
    }


def _vm(azure: World, name: str, *, disk: int = 0, **other: Any) -> dict[str, Any]:
    """A VM as a document."""
    site = azure.azure.site
    key = {"path": "/home/me/.ssh/authorized_keys", "keyData": "ssh-rsa " + "A" * 372}
    address = {"name": "one", "properties": {"subnet": {"id": site.subnet}}}
    nic = {
        "name": f"{name}-nic",
        "properties": {"primary": True, "deleteOption": "Delete", "ipConfigurations": [address]},
    }
    root = {"name": f"{name}-disk", "createOption": "FromImage", "deleteOption": "Delete", "managedDisk": {}}
    return {
        "location": site.region,
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "storageProfile": {
                "imageReference": {"id": site.image},
                "osDisk": {**root, **({"diskSizeGB": disk} if disk else {})},
            },
            "osProfile": {
                "computerName": name,
                "adminUsername": "me",
                "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
            },
            "networkProfile": {"networkApiVersion": "2022-11-01", "networkInterfaceConfigurations": [nic]},
            **other,
        },
    }


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ("Standard_DC2as_v5", "standardDCASv5Family"),
        ("Standard_D2s_v5", "standardDSv5Family"),
        ("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family"),
    ],
)
def test_families(size: str, name: str) -> None:
    assert family(size) == name


def test_the_quota_is_in_vcpus_and_listed_as_used(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.quota.limits["standardDSv5Family"] = 7
    compute.virtual_machines.begin_create_or_update(RG, "one", _vm(azure, "one")).result()
    used = {one.name.value: (one.current_value, one.limit) for one in compute.usage.list("westeurope")}
    assert used["cores"] == (4, 1000)
    assert used["standardDSv5Family"] == (4, 7)
    with pytest.raises(HttpResponseError, match=r"OperationNotAllowed.*standardDSv5Family quota"):
        compute.virtual_machines.begin_create_or_update(RG, "two", _vm(azure, "two"))
    spot = _vm(azure, "two", priority="Spot", evictionPolicy="Delete")
    compute.virtual_machines.begin_create_or_update(RG, "two", spot).result()
    used = {one.name.value: (one.current_value, one.limit) for one in compute.usage.list("westeurope")}
    assert (used["cores"][0], used["lowPriorityCores"][0]) == (4, 4)
    for name in ("one", "two"):
        compute.virtual_machines.begin_delete(RG, name).wait()


def test_what_a_broken_put_left_is_in_the_way(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.half_made, azure.azure.delays.reserved = 1, 60
    with pytest.raises(HttpResponseError, match="InternalExecutionError"):
        compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure, "vm"))
    with pytest.raises(HttpResponseError, match="ConflictingUserInput"):
        compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure, "vm"))
    compute.disks.begin_delete(RG, "vm-disk").wait()
    with _credential(azure) as credential, NetworkManagementClient(credential, **_options(azure)) as network:
        [nic] = network.network_interfaces.list(RG)
        with pytest.raises(HttpResponseError, match="NicReservedForAnotherVm"):
            network.network_interfaces.begin_delete(RG, nic.name)
        azure.azure.estate.held.clear()
        network.network_interfaces.begin_delete(RG, nic.name).wait()


def test_images_have_versions_and_a_size(azure: World, compute: ComputeManagementClient) -> None:
    own = compute.gallery_image_versions.get(RG, "podvm", "sealed", "1.0.0")
    assert own.properties.storage_profile.os_disk_image.size_in_gb == 30
    assert [one.name for one in own.properties.publishing_profile.target_regions] == ["North Europe", "West Europe"]
    theirs = compute.community_gallery_image_versions.get("westeurope", "cococommunity-42", "podvm", "1.0.0")
    assert theirs.properties.storage_profile.os_disk_image.disk_size_gb == 30
    shared = compute.shared_gallery_image_versions.get("westeurope", "shared-42", "podvm", "1.0.0")
    assert shared.properties.storage_profile.os_disk_image.disk_size_gb == 30
    with pytest.raises(ResourceNotFoundError):
        compute.gallery_image_versions.get(RG, "podvm", "sealed", "2.0.0")
    with pytest.raises(HttpResponseError, match="smaller than the disk of the VM image"):
        compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure, "vm", disk=29))


def test_permissions_are_listed_at_every_scope(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.role.excepted = {"Microsoft.Compute/disks/delete"}
    for scope in (f"/subscriptions/{azure.azure.site.subscription}/resourceGroups/pods", azure.azure.site.subnet):
        url = f"{azure.wire.url}{scope}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
        answer = compute.send_request(HttpRequest("GET", url))
        [permission] = answer.json()["value"]
        assert set(permission["actions"]) == azure.azure.role.listed
        assert permission["notActions"] == ["Microsoft.Compute/disks/delete"]
    azure.azure.estate.make_disk("data")
    with pytest.raises(HttpResponseError, match=r"AuthorizationFailed.*disks/delete"):
        compute.disks.begin_delete(RG, "data")
