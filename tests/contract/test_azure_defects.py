"""The defects of the reference's driver (reference/providers.md 5.2), a test each that would show it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import InstanceTypeError, ProviderError, ProviderUnavailable
from caa.model.ids import InstanceId
from caa.model.instance import InstanceState, Severity, Sizing
from caa.provider.choose import choose
from caa.testing.clock import FakeClock
from providers.azure import client, keys
from providers.azure.around import Operations, Waits
from providers.azure.fleet import Fleet
from tests.fakes.azure.arm import TOKEN
from tests.fakes.azure.world import OWNER, World, launch, world


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_defect_a_failed_put_leaves_nothing(azure: World) -> None:
    """A failed VM, its disk, interface and address remained. Here they go first: Azure makes no VM over another one's
    disk, and holds the interface for 180 s."""
    azure.azure.half_made = 1
    azure.azure.delays.reserved = 0.3
    one = azure.make(USE_PUBLIC_IP="true")
    made = await one.create(launch())
    assert len(azure.puts()) == 3, "broken off, refused because of the disk, made"
    assert azure.azure.ledger.made == {"disk": 2, "nic": 2, "address": 2, "vm": 1}
    assert len(azure.azure.ledger.alive()) == 4
    await one.delete(made.id)
    assert not azure.azure.ledger
    azure.azure.half_made = 99
    with pytest.raises(ProviderError, match="InternalExecutionError"):
        await one.create(launch())
    assert not azure.azure.ledger
    await one.close()


async def test_defect_what_a_crashed_node_left_is_listed_and_removed(azure: World) -> None:
    azure.azure.estate.half_make("podvm-web-0a1b2c3d", _asked(azure))
    one = azure.make()
    listed = await one.list_owned(OWNER)
    kinds = {str(found.id).split("/")[-2] for found in listed}
    assert kinds == {"networkInterfaces", "publicIPAddresses", "disks"}, "the disk has no tags, its name tells"
    assert {found.sandbox for found in listed} == {"s1"}
    await asyncio.gather(*(one.delete(found.id) for found in listed))
    assert not azure.azure.ledger
    await one.close()


def _asked(azure: World) -> dict[str, object]:
    tags = {"caa-cluster": "c1", "caa-node": "n1", "caa-sandbox": "s1", "caa-name": "podvm-web-0a1b2c3d"}
    public = {"name": "ip", "tags": tags, "properties": {}}
    address = {"name": "config", "properties": {"publicIPAddressConfiguration": public}}
    nic = {"name": "net", "tags": tags, "properties": {"ipConfigurations": [address]}}
    return {"properties": {"networkProfile": {"networkInterfaceConfigurations": [nic]}}}


async def test_defect_no_key_is_made_for_each_pod(azure: World) -> None:
    """An RSA-4096 pair per pod. Here one public key serves all, on all nodes; its private half has never been."""
    one = azure.make()
    for name in ("podvm-web-0a1b2c3d", "podvm-web-9f8e7d6c"):
        made = await one.create(launch(name))
        await one.delete(made.id)
    first, second = (body["properties"]["osProfile"]["linuxConfiguration"]["ssh"] for body in azure.puts())
    assert first == second
    assert first["publicKeys"][0]["keyData"] == keys.NOBODY
    assert not list(azure.folder.glob("**/*rsa*"))
    await one.close()


async def test_defect_gpu_and_tee_are_in_the_catalogue(azure: World) -> None:
    gpu = "Standard_NC24ads_A100_v4"
    one = azure.make(DISABLECVM="true", AZURE_INSTANCE_SIZES=f"{gpu},Standard_DC2as_v5,Standard_D4s_v5")
    types = await one.instance_types()
    assert choose(Sizing(gpus=1), types, default="Standard_DC2as_v5") == gpu
    assert choose(Sizing(vcpus=4), types, default="Standard_DC2as_v5") == "Standard_D4s_v5"
    with pytest.raises(InstanceTypeError, match="not part of supported instance types list"):
        choose(Sizing(instance_type="Standard_E2s_v5"), types, default="Standard_DC2as_v5")
    with pytest.raises(InstanceTypeError, match="no instance type found for the given vcpus"):
        choose(Sizing(vcpus=512), types, default="Standard_DC2as_v5")
    await one.close()


async def test_defect_unknown_sizes_are_named(azure: World) -> None:
    """Sizes that a region lacks were dropped in silence."""
    one = azure.make(AZURE_INSTANCE_SIZES="Standard_DC4as_v5,Standard_DC96as_v9,Standard_D8s_v5,Standard_D2s_v5")
    told = [found.detail for found in await one.check() if found.severity is Severity.WARNING]
    assert any("Standard_DC96as_v9" in text for text in told)
    assert any("Standard_D8s_v5" in text for text in told), "the subscription may not use it"
    assert any("Standard_D2s_v5 has no TEE" in text for text in told)
    await one.close()


async def test_defect_the_zone_is_used(azure: World) -> None:
    """The reference takes --zone and never uses it. Zone 1 does not have the TDX size, and nobody paid to find out."""
    for settings, zone in (
        ({"AZURE_ZONE": "3"}, "3"),
        ({"AZURE_INSTANCE_SIZE": "Standard_DC2es_v5", "AZURE_ZONE": "1", "FALLBACK_ZONES": "2"}, "2"),
    ):
        one = azure.make(**settings)
        made = await one.create(launch())
        assert azure.puts()[-1]["zones"] == [zone]
        await one.delete(made.id)
        await one.close()


class OneVm:
    """An Arm that has one interface, in a resource group of its own; it notes what was read."""

    def __init__(self) -> None:
        self.read_from: list[tuple[str, ...]] = []

    async def read(self, operation: str, *where: str, **_: object) -> dict[str, object]:
        self.read_from.append((operation, *where))
        return {"id": "x", "properties": {"ipConfigurations": [{"properties": {"privateIPAddress": "10.0.0.4"}}]}}


async def test_defect_interfaces_are_found_by_their_own_group(tmp_path: Path) -> None:
    """All of them were looked for in AZURE_RESOURCE_GROUP."""
    base = "/subscriptions/s/resourceGroups"
    nics = [{"id": f"{base}/Elsewhere/providers/Microsoft.Network/networkInterfaces/nic"}]
    vm = {
        "id": f"{base}/pods/providers/Microsoft.Compute/virtualMachines/podvm-web",
        "properties": {"networkProfile": {"networkInterfaces": nics}},
    }
    arm = OneVm()
    fleet = Fleet(arm, "pods", operations=Operations(tmp_path), clock=FakeClock(), waits=Waits())  # type: ignore[arg-type]
    made = await fleet.instance(vm, public=False)
    assert [str(one) for one in made.addresses] == ["10.0.0.4"]
    assert arm.read_from == [("network.network_interfaces.get", "Elsewhere", "nic")]


async def test_defect_ids_are_read_without_regard_to_case(azure: World) -> None:
    """A regular expression that minds the case cut the name out of the id."""
    one = azure.make()
    made = await one.create(launch())
    shouted = InstanceId(str(made.id).replace("resourceGroups/pods", "RESOURCEGROUPS/PODS"))
    assert await one.state(shouted) is InstanceState.RUNNING
    await one.delete(shouted)
    assert not azure.azure.ledger
    await one.close()


async def test_defect_the_size_list_is_not_fetched_for_every_pod(azure: World) -> None:
    one = azure.make()
    for number in range(3):
        disk = azure.azure.estate.make_disk(f"data-{number}")
        made = await one.create(launch(f"podvm-web-0000000{number}", volumes=(disk,)))
        await one.delete(made.id)
    assert azure.wire.calls().count("ResourceSkus.List") == 1
    await one.close()


async def test_defect_public_addresses_come_first_and_private_ones_after(azure: World) -> None:
    one = azure.make(USE_PUBLIC_IP="true", EXTERNAL_NETWORK_VIA_PODVM="true")
    made = await one.create(launch())
    assert [str(address).split(".")[0] for address in made.addresses] == ["20", "20", "10", "10"]
    await one.delete(made.id)
    await one.close()


async def test_defect_gone_is_told_by_code_and_delete_is_forced(azure: World) -> None:
    """The reference searches the error's text for "NotFound"."""
    one = azure.make()
    made = await one.create(launch())
    await one.delete(made.id)
    await one.delete(made.id)
    deletes = [noted.request.query for noted in azure.wire.journal if noted.call == "VirtualMachines.Delete"]
    assert [query["forceDeletion"].lower() for query in deletes] == ["true", "true"]
    assert await one.state(made.id) is InstanceState.ABSENT
    await one.close()


async def test_defect_clients_are_made_once(azure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """New clients for each call, each with a token and connections of its own."""
    made_clients = []
    whole = client._Clients.__init__
    monkeypatch.setattr(client._Clients, "__init__", lambda *given: made_clients.append(given) or whole(*given))
    one = azure.make()
    for number in range(3):
        made = await one.create(launch(f"podvm-web-0000000{number}"))
        await one.delete(made.id)
    assert len(made_clients) == 1
    assert azure.wire.calls().count(TOKEN) == 1
    await one.close()


async def test_defect_an_interface_that_is_kept_for_another_vm_is_waited_for(azure: World) -> None:
    """user-pains.md, Azure: NicReservedForAnotherVm refuses the PUT for 180 s, which is no reason to give up."""
    azure.azure.reserved = 8  # more than a call is repeated
    one = azure.make()
    made = await one.create(launch())
    assert len(azure.puts()) == 9
    await one.delete(made.id)
    azure.azure.reserved = 999
    with pytest.raises(ProviderUnavailable, match=r"podvm-web-0a1b2c3d can be made: not after 200 s"):
        await one.create(launch())
    await one.close()
