"""The fake Azure, driven by the official SDK in ways that the driver does not use: its own waits, models, clients."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient, models
from azure.mgmt.network import NetworkManagementClient

from tests.fakes.azure.world import World, world
from tests.fakes.faults import Fault

RG = "pods"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    """The world without a loop of its own: the SDK's blocking clients talk to it."""
    with asyncio.Runner() as runner:
        made = world(tmp_path)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def compute(azure: World) -> Iterator[ComputeManagementClient]:
    with _credential(azure) as credential, ComputeManagementClient(credential, **_options(azure)) as client:
        yield client


def _credential(azure: World, secret: str = "secret") -> ClientSecretCredential:
    options: dict[str, Any] = {"disable_instance_discovery": True, "connection_verify": str(azure.ca)}
    return ClientSecretCredential(azure.azure.site.tenant, "client", secret, authority=azure.wire.url, **options)


def _options(azure: World) -> dict[str, Any]:
    return {
        "subscription_id": azure.azure.site.subscription,
        "base_url": azure.wire.url,
        "credential_scopes": ["https://management.azure.com/.default"],
        "connection_verify": str(azure.ca),
        "retry_total": 0,
    }


def _vm(azure: World, **other: Any) -> models.VirtualMachine:
    """A VM by the SDK's classes, not as a document."""
    site = azure.azure.site
    key = models.SshPublicKey(path="/home/me/.ssh/authorized_keys", key_data="ssh-rsa " + "A" * 372)
    address = models.VirtualMachineNetworkInterfaceIPConfiguration(
        name="one",
        properties=models.VirtualMachineNetworkInterfaceIPConfigurationProperties(
            subnet=models.SubResource(id=site.subnet)
        ),
    )
    nic = models.VirtualMachineNetworkInterfaceConfiguration(
        name="nic",
        properties=models.VirtualMachineNetworkInterfaceConfigurationProperties(
            primary=True, delete_option="Delete", ip_configurations=[address]
        ),
    )
    properties = models.VirtualMachineProperties(
        hardware_profile=models.HardwareProfile(vm_size=other.pop("size", "Standard_D2s_v5")),
        storage_profile=models.StorageProfile(
            image_reference=models.ImageReference(id=site.image),
            os_disk=models.OSDisk(
                name="vm-root",
                create_option="FromImage",
                delete_option="Delete",
                managed_disk=models.ManagedDiskParameters(storage_account_type="Premium_LRS"),
            ),
        ),
        os_profile=models.OSProfile(
            computer_name="vm",
            admin_username="me",
            linux_configuration=models.LinuxConfiguration(
                disable_password_authentication=True, ssh=models.SshConfiguration(public_keys=[key])
            ),
        ),
        network_profile=models.NetworkProfile(network_api_version="2022-11-01", network_interface_configurations=[nic]),
        **other,
    )
    return models.VirtualMachine(location=site.region, properties=properties)


def test_a_life_by_the_sdks_own_waits(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.delays.made = azure.azure.delays.ending = 0.2
    poller = compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure), polling_interval=0.05)
    token = poller.continuation_token()
    made = compute.virtual_machines.begin_create_or_update(RG, "vm", {}, continuation_token=token).result()
    assert made.properties.provisioning_state == "Succeeded"
    with _credential(azure) as credential, NetworkManagementClient(credential, **_options(azure)) as network:
        [nic] = network.network_interfaces.list(RG)
        assert nic.properties.virtual_machine.id == made.id
        with pytest.raises(HttpResponseError, match="NicInUse"):
            network.network_interfaces.begin_delete(RG, nic.name)
    compute.virtual_machines.begin_delete(RG, "vm", polling_interval=0.05).wait()
    with pytest.raises(ResourceNotFoundError):
        compute.virtual_machines.get(RG, "vm")
    compute.virtual_machines.begin_delete(RG, "vm").wait()


def test_an_operation_fails_with_its_code(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.faults.full = {("Standard_D2s_v5", "")}
    with pytest.raises(HttpResponseError, match="AllocationFailed"):
        compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure)).result()
    [view] = compute.virtual_machines.instance_view(RG, "vm").statuses
    assert view.code == "ProvisioningState/failed/AllocationFailed"
    assert {one.kind for one in azure.azure.ledger.alive()} == {"vm", "nic", "disk"}, "half-made things stay"
    compute.virtual_machines.begin_delete(RG, "vm").wait()


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "propertys", {}),
        (("properties",), "vmSize", "Standard_D2s_v5"),
        (("properties", "hardwareProfile"), "vmSize", 3),
        (("properties", "storageProfile", "osDisk"), "deleteOption", "Perhaps"),
        (("properties",), "provisioningState", "Succeeded"),
        (("properties",), "userData", "not base64!"),
        (("properties", "networkProfile"), "networkApiVersion", None),
    ],
)
def test_an_unknown_or_misplaced_field_is_refused(
    azure: World, compute: ComputeManagementClient, place: tuple[str, ...], key: str, value: object
) -> None:
    body = _vm(azure).as_dict()
    inner: Any = body
    for one in place:
        inner = inner[one]
    inner[key] = value
    with pytest.raises(HttpResponseError) as caught:
        compute.virtual_machines.begin_create_or_update(RG, "vm", body)
    assert caught.value.status_code == 400
    assert not azure.azure.ledger


def test_confidential_needs_the_size_the_disk_profile_and_the_vtpm(
    azure: World, compute: ComputeManagementClient
) -> None:
    for size, vtpm in (("Standard_D2s_v5", True), ("Standard_DC2as_v5", True), ("Standard_DC2as_v5", False)):
        uefi = models.UefiSettings(v_tpm_enabled=vtpm, secure_boot_enabled=False)
        security = models.SecurityProfile(security_type="ConfidentialVM", uefi_settings=uefi)
        with pytest.raises(HttpResponseError) as caught:
            compute.virtual_machines.begin_create_or_update(RG, "vm", _vm(azure, size=size, security_profile=security))
        assert caught.value.status_code == 400


def test_listings_have_pages(azure: World, compute: ComputeManagementClient) -> None:
    for number in range(95):
        azure.azure.estate.make_disk(f"disk-{number}")
    assert len(list(compute.disks.list_by_resource_group(RG))) == 95
    assert azure.wire.calls().count("Disks.List") == 3


def test_skus_have_tee_zones_and_restrictions(compute: ComputeManagementClient) -> None:
    found = {one.name: one for one in compute.resource_skus.list(filter="location eq 'westeurope'")}
    can = {one.name: one.value for one in found["Standard_DC2es_v5"].capabilities}
    assert can["ConfidentialComputingType"] == "TDX"
    assert found["Standard_DC2es_v5"].location_info[0].zones == ["2"]
    assert found["Standard_D8s_v5"].restrictions[0].reason_code == "NotAvailableForSubscription"


def test_who_is_nobody_gets_no_token_and_who_is_not_allowed_no_answer(
    azure: World, compute: ComputeManagementClient
) -> None:
    with (
        _credential(azure, "wrong") as credential,
        ComputeManagementClient(credential, **_options(azure)) as client,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        client.virtual_machines.get(RG, "vm")
    azure.azure.role.listed.clear()
    with pytest.raises(HttpResponseError, match="AuthorizationFailed"):
        list(compute.virtual_machines.list(RG))
    azure.azure.identity.revoke()
    with pytest.raises(ClientAuthenticationError, match="InvalidAuthenticationToken"):
        list(compute.virtual_machines.list(RG))


def test_throttling_says_when(azure: World, compute: ComputeManagementClient) -> None:
    azure.azure.faults.retry_after = 7
    azure.azure.faults.plan("VirtualMachines.Get", Fault.THROTTLED)
    with pytest.raises(HttpResponseError, match="TooManyRequests") as caught:
        compute.virtual_machines.get(RG, "vm")
    assert caught.value.response is not None
    assert caught.value.response.headers["Retry-After"] == "7"
