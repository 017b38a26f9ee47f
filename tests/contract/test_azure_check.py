"""What `azure` proves before the first pod, and the role of its page: enough, and none of it too much."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import CredentialsError, QuotaError
from caa.model.instance import Finding, InstanceState, Severity
from tests.fakes.azure.role import Role
from tests.fakes.azure.world import World, launch, world


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_the_role_of_the_page_is_enough_and_not_too_much(azure: World) -> None:
    """What the page lists is what lives of pods use, a broken PUT among them; what it does not list is denied."""
    azure.azure.half_made = 1
    for settings in (azure.loaded(), {}, {"DISABLECVM": "true", "AZURE_INSTANCE_SIZE": "Standard_D2s_v5"}):
        one = azure.make(**settings)
        made = await one.create(launch())
        assert await one.console(made.id)
        assert await one.state(made.id) is InstanceState.RUNNING
        assert not [found for found in await one.check() if found.severity is Severity.ERROR]
        await one.delete(made.id)
        await one.close()
    # The other kinds of images are another test's.
    assert {one for one in azure.azure.role.listed - azure.azure.role.used if "/images/" not in one} == set()


async def test_a_right_that_is_missing_is_named(azure: World) -> None:
    action = "Microsoft.Network/virtualNetworks/subnets/join/action"
    azure.azure.role = Role([one for one in azure.azure.role.listed if one != action])
    one = azure.make()
    with pytest.raises(CredentialsError, match=rf"{action}.*docs/providers/azure\.md"):
        await one.create(launch())
    await one.close()


async def told(azure: World, **settings: str) -> dict[str, list[Finding]]:
    """What `check` says that is not well, by subject."""
    one = azure.make(**settings)
    found: dict[str, list[Finding]] = {}
    for finding in await one.check():
        if finding.severity is not Severity.OK:
            found.setdefault(finding.subject, []).append(finding)
    await one.close()
    return found


async def test_all_is_well(azure: World) -> None:
    one = azure.make(**azure.loaded())
    assert {(found.subject, found.severity) for found in await one.check()} == {
        (subject, Severity.OK)
        for subject in ("credentials", "image", "instance types", "permissions", "subnet", "security group", "quota")
    }
    assert not azure.azure.ledger.made, "nothing is made to find out"
    await one.close()


@pytest.mark.parametrize(
    ("action", "settings"),
    [
        ("Microsoft.Compute/virtualMachines/write", {}),
        ("Microsoft.Compute/virtualMachines/delete", {}),
        ("Microsoft.Compute/disks/delete", {}),
        ("Microsoft.Network/networkInterfaces/join/action", {}),
        ("Microsoft.Network/virtualNetworks/subnets/join/action", {}),
        ("Microsoft.Network/networkSecurityGroups/join/action", {}),
        ("Microsoft.Network/publicIPAddresses/join/action", {"USE_PUBLIC_IP": "1"}),
        ("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", {"AZURE_VM_IDENTITIES": "IDENTITY"}),
        ("Microsoft.Compute/galleries/images/versions/read", {}),
    ],
)
async def test_a_right_to_write_that_is_missing_is_named_before_the_first_pod(
    azure: World, action: str, settings: dict[str, str]
) -> None:
    """Given to nobody, or given and taken away again by notActions."""
    identity = f"{azure.azure.site.base}/Microsoft.ManagedIdentity/userAssignedIdentities/pod"
    filled = {key: value.replace("IDENTITY", identity) for key, value in settings.items()}
    whole = azure.azure.role.listed
    for role in (Role([one for one in whole if one != action]), Role(["*"], [action])):
        azure.azure.role = role
        [finding] = (await told(azure, **filled))["permissions"]
        assert finding.severity is Severity.ERROR
        assert finding.detail.endswith(f": {action}")
        assert "docs/providers/azure.md" in finding.remedy
        assert "/resourceGroups/pods" in finding.remedy


async def test_a_right_that_only_the_console_needs_is_no_error(azure: World) -> None:
    azure.azure.role.listed.discard("Microsoft.Compute/virtualMachines/retrieveBootDiagnosticsData/action")
    assert [found.severity for found in (await told(azure))["permissions"]] == [Severity.WARNING]


async def test_rights_that_cannot_be_listed_are_no_error(azure: World) -> None:
    azure.azure.role.listed.discard("Microsoft.Authorization/permissions/read")
    [finding] = (await told(azure))["permissions"]
    assert finding.severity is Severity.WARNING
    assert "Microsoft.Authorization/permissions/read" in finding.remedy


async def test_a_shut_group_and_a_small_subnet(azure: World) -> None:
    shut = {"direction": "Inbound", "protocol": "Tcp", "destinationPortRange": "15000-16000", "access": "Deny"}
    azure.azure.rules = [{"properties": {**shut, "priority": 100, "sourceAddressPrefix": "*"}}]
    azure.azure.subnet_range = "10.0.0.0/28"
    found = await told(azure)
    assert "tcp 15150" in found["security group"][0].detail
    assert "11 free addresses" in found["subnet"][0].detail
    azure.azure.subnet_group = azure.azure.site.nsg
    assert "tcp 15150" in (await told(azure, AZURE_NSG_ID=""))["security group"][0].detail, "the subnet's counts too"
    azure.azure.subnet_group = azure.azure.site.nsg.replace("/pods", "/theirs")
    assert "security group" in await told(azure)


async def test_the_quota_of_region_family_and_spot(azure: World) -> None:
    limits = azure.azure.quota.limits
    spot = {"PURCHASE_OPTIONS": "spot"}
    for name, settings in (("cores", {}), ("standardDCASv5Family", {}), ("lowPriorityCores", spot)):
        limits[name] = 3
        [finding] = (await told(azure, **settings))["quota"]
        assert finding.severity is Severity.WARNING, "a node whose pods use it up may restart"
        assert f"{name} 3" in finding.detail
        limits.clear()
    limits["standardDCASv5Family"] = 1
    one = azure.make()
    with pytest.raises(QuotaError, match=r"OperationNotAllowed: .*standardDCASv5Family.*ask Azure"):
        await one.create(launch())
    await one.close()


@pytest.mark.parametrize("key", ["AZURE_SUBNET_ID", "AZURE_NSG_ID"])
async def test_what_is_not_there_is_named_by_its_setting(azure: World, key: str) -> None:
    driver = azure.make(**{key: azure.settings()[key] + "x"})
    told = [one.detail for one in await driver.check() if one.severity is Severity.ERROR]
    assert any("was not found" in one and key in one for one in told), told
    await driver.close()
