"""What Azure answers, read: ids, states, failures, sizes."""

import pytest

from caa.errors import CapacityError, Misconfigured, ProviderError
from caa.model.instance import Arch, InstanceState, Tee
from providers.azure import shapes

GROUP = "/subscriptions/s-1/resourceGroups/pods/providers"


def view(*codes: str) -> dict[str, object]:
    return {"statuses": [{"code": code, "message": "words"} for code in codes]}


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        (f"{GROUP}/Microsoft.Compute/virtualMachines/podvm-a", "virtualMachines", "podvm-a"),
        (f"{GROUP}/microsoft.compute/VIRTUALMACHINES/podvm-a".upper(), "virtualMachines", "PODVM-A"),
        (f"{GROUP}/Microsoft.Network/networkInterfaces/n", "networkInterfaces", "n"),
    ],
)
def test_an_id_is_read_without_regard_to_case(text: str, kind: str, name: str) -> None:
    found = shapes.where(text)
    assert found is not None
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "podvm-a",
        f"{GROUP}/Microsoft.Compute/virtualMachines/",
        f"{GROUP}/Microsoft.Compute/virtualMachines/a/../b",
        f"{GROUP}/Microsoft.Compute/virtualMachines/a\n",
        f"{GROUP}/Microsoft.Compute/virtualMachines/{'a' * 200}",
        f"{GROUP}/Microsoft.Storage/storageAccounts/a",
    ],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert shapes.where(text) is None


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        (("ProvisioningState/creating",), InstanceState.RUNNING),
        (("ProvisioningState/succeeded", "PowerState/running"), InstanceState.RUNNING),
        (("ProvisioningState/failed/X", "PowerState/running"), InstanceState.RUNNING),
        (("ProvisioningState/failed/AllocationFailed",), InstanceState.STOPPED),
        (("ProvisioningState/succeeded", "PowerState/deallocated"), InstanceState.STOPPED),
        (("ProvisioningState/deleting", "PowerState/running"), InstanceState.STOPPED),
    ],
)
def test_the_state_by_the_instance_view(codes: tuple[str, ...], state: InstanceState) -> None:
    assert shapes.state(view(*codes)) is state


def test_why_a_vm_failed() -> None:
    assert isinstance(shapes.failure(view("ProvisioningState/failed/AllocationFailed")), CapacityError)
    assert type(shapes.failure(view("ProvisioningState/failed/Whatever"))) is ProviderError
    assert shapes.failure(view("ProvisioningState/failed")) is None
    assert shapes.failure(view("ProvisioningState/succeeded")) is None


def sku(**other: object) -> dict[str, object]:
    can = {"vCPUs": "96", "vCPUsAvailable": "4", "MemoryGB": "7.5", "GPUs": "1", "ConfidentialComputingType": "SNP"}
    return {
        "resourceType": "virtualMachines",
        "name": "Standard_X",
        "locationInfo": [{"location": "WestEurope", "zones": ["1", "2", "3"]}],
        "capabilities": [{"name": key, "value": value} for key, value in can.items()],
        **other,
    }


def test_a_size_has_everything_that_a_choice_needs() -> None:
    limits = [{"type": "Zone", "restrictionInfo": {"zones": ["2"]}}]
    found = shapes.instance_type(sku(restrictions=limits), "westeurope")
    assert found is not None
    assert (found.vcpus, found.memory_mib, found.gpus, found.arch) == (4, 7680, 1, Arch.AMD64)
    assert found.tees == {Tee.SNP}
    assert found.zones == {"1", "3"}


@pytest.mark.parametrize(
    "other",
    [
        {"resourceType": "disks"},
        {"restrictions": [{"type": "Location"}]},
        {"capabilities": [{"name": "vCPUs", "value": "many"}]},
    ],
)
def test_what_cannot_be_had_is_no_size(other: dict[str, object]) -> None:
    assert shapes.instance_type(sku(**other), "westeurope") is None


def test_a_disk_that_is_held_or_elsewhere_is_refused() -> None:
    free = {"location": "westeurope", "zones": ["2"], "properties": {"diskState": "Unattached"}}
    assert shapes.refuse_busy_disk(free, name="d", region="westeurope", vm="podvm-a") == "2"
    held = {**free, "managedBy": f"{GROUP}/x/virtualMachines/PODVM-A", "properties": {"diskState": "Attached"}}
    assert shapes.refuse_busy_disk(held, name="d", region="westeurope", vm="podvm-a") == "2", (
        "our own, of an earlier try"
    )
    with pytest.raises(Misconfigured, match="is Attached"):
        shapes.refuse_busy_disk(held, name="d", region="westeurope", vm="podvm-b")
    with pytest.raises(Misconfigured, match="AZURE_REGION"):
        shapes.refuse_busy_disk(free, name="d", region="northeurope", vm="podvm-a")


def test_the_primary_interface_comes_first() -> None:
    nics = [{"id": "b", "properties": {"primary": False}}, {"id": "a", "properties": {"primary": True}}]
    assert shapes.nic_ids({"properties": {"networkProfile": {"networkInterfaces": nics}}}) == ["a", "b"]
