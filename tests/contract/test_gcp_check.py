"""What `caa doctor` says of a Google Cloud that is not as a launch needs it; each finding says what to change."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from caa.errors import CapacityError, QuotaError
from caa.model.instance import Severity
from tests.fakes.gcp.role import Role
from tests.fakes.gcp.world import World, launch, world

ACCOUNT = "vm@demo-project.iam.gserviceaccount.com"
ACT_AS = "iam.serviceAccounts.actAs"
FULL = {
    "GCP_INSTANCE_TYPES": "n2d-custom-2-4096,n1-standard-8",
    "GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4:1",
    "GCP_NETWORK_TAGS": "podvm",
    "GCP_PODVM_SERVICE_ACCOUNT": ACCOUNT,
    "PODVM_IMAGE_NAME": "projects/demo-project/global/images/family/podvm",
    "TAGS": "team=blue",
    "USE_PUBLIC_IP": "true",
}
SHARED = {
    "GCP_NETWORK": "projects/host-project/global/networks/shared",
    "GCP_SUBNETWORK": "projects/host-project/regions/europe-west3/subnetworks/shared",
    "PODVM_IMAGE_NAME": "projects/image-project/global/images/podvm",
}
SUBNETWORK = "projects/demo-project/regions/europe-west3/subnetworks/pods"


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def told(gcp: World, settings: Mapping[str, str] | None = None, *, also: Severity | None = None) -> str:
    """What is wrong; or what is `also` said."""
    driver = gcp.make(**(settings or {}))
    wanted = {also} if also else {Severity.ERROR, Severity.WARNING}
    found = [one for one in await driver.check() if one.severity in wanted]
    await driver.close()
    assert gcp.cloud.inserts == []
    return "; ".join(f"{one.severity} {one.subject}: {one.detail} -> {one.remedy}" for one in found)


async def launched(gcp: World, settings: Mapping[str, str], **request: object) -> None:
    driver = gcp.make(**settings)
    made = await driver.create(launch(**request))  # type: ignore[arg-type]
    await driver.console(made.id)
    await driver.delete(made.id)
    await driver.close()


class TestPermissions:
    @pytest.mark.parametrize("permission", sorted(Role.of_page().listed))
    async def test_each_that_the_page_lists_is_missed(self, gcp: World, permission: str) -> None:
        """What a call needs is either asked for by name, or that call fails in the check and names it."""
        gcp.google.role.on[f"projects/demo-project/serviceAccounts/{ACCOUNT}"] = {ACT_AS}
        gcp.google.role.listed.discard(permission)
        found = await told(gcp, FULL)
        assert f"'{permission}'" in found or f"lacks {permission} in " in found, found
        assert "docs/providers/gcp.md" in found

    async def test_the_role_of_the_page_is_used_to_the_last_line(self, gcp: World) -> None:
        """What the page lists and nothing needs would be a privilege too many."""
        gcp.google.role.on[f"projects/demo-project/serviceAccounts/{ACCOUNT}"] = {ACT_AS}
        volume = gcp.cloud.make_disk("europe-west3-a", "pvc-1")
        await told(gcp, FULL)
        await launched(gcp, FULL, volumes=(volume,), image="podvm")
        gcp.cloud.half_made = True
        gcp.google.faults.full = {("", "")}
        with pytest.raises(CapacityError):
            await launched(gcp, {})
        assert gcp.google.role.listed - gcp.google.role.used == set()

    async def test_nothing_is_missed_of_what_is_not_set(self, gcp: World) -> None:
        """A node that has neither tags nor public addresses nor GPUs does without their rights."""
        optional = {
            "compute.images.getFromFamily", "compute.machineTypes.get", "compute.acceleratorTypes.get",
            "compute.instances.setTags", "compute.subnetworks.useExternalIp", "compute.disks.createTagBinding",
            "compute.instances.createTagBinding", "resourcemanager.tagValueBindings.create",
            "resourcemanager.tagValues.get", "compute.instances.setServiceAccount",
        }  # fmt: skip
        assert optional < gcp.google.role.listed
        gcp.google.role.listed -= optional
        assert await told(gcp) == ""
        await launched(gcp, {})

    async def test_what_only_the_check_reads_ends_no_pod(self, gcp: World) -> None:
        gcp.google.role.listed -= {
            "compute.networks.get", "compute.networks.getEffectiveFirewalls", "compute.regions.get",
            "compute.subnetworks.get",
        }  # fmt: skip
        found = await told(gcp)
        assert "error" not in found
        for subject in ("firewall", "quota", "subnetwork"):
            assert f"warning {subject}: not known: forbidden: Required 'compute." in found
        await launched(gcp, {})

    async def test_those_of_the_subnetwork_may_be_granted_on_it_alone(self, gcp: World) -> None:
        gcp.google.role.listed -= {"compute.subnetworks.use", "compute.subnetworks.get"}
        gcp.google.role.on[SUBNETWORK] = {"compute.subnetworks.get"}
        assert f"lacks compute.subnetworks.use in {SUBNETWORK}" in await told(gcp)
        gcp.google.role.on[SUBNETWORK] = {"compute.subnetworks.get", "compute.subnetworks.use"}
        assert await told(gcp) == ""
        await launched(gcp, {})

    async def test_a_shared_network_and_another_projects_image(self, gcp: World) -> None:
        role = gcp.google.role
        role.on[SHARED["PODVM_IMAGE_NAME"]] = {"compute.images.get"}
        found = await told(gcp, SHARED)
        assert f"lacks compute.subnetworks.use in {SHARED['GCP_SUBNETWORK']} -> " in found
        assert "roles/compute.networkUser" in found
        assert f"lacks compute.images.useReadOnly in {SHARED['PODVM_IMAGE_NAME']} -> " in found
        assert "roles/compute.imageUser" in found
        role.on[SHARED["GCP_SUBNETWORK"]] = {"compute.subnetworks.use"}
        role.on[SHARED["PODVM_IMAGE_NAME"]].add("compute.images.useReadOnly")
        found = await told(gcp, SHARED)  # what only the check would read ends no pod
        assert "error" not in found
        assert "warning firewall: not known: forbidden: Required 'compute.networks.getEffectiveFirewalls'" in found
        assert "warning subnetwork: not known: forbidden: Required 'compute.subnetworks.get'" in found
        await launched(gcp, SHARED)
        role.on["projects/host-project"] = {"compute.networks.get", "compute.networks.getEffectiveFirewalls"}
        role.on[SHARED["GCP_SUBNETWORK"]].add("compute.subnetworks.get")
        gcp.cloud.inserts.clear()
        assert await told(gcp, SHARED) == ""

    async def test_a_tag_that_may_not_be_bound(self, gcp: World) -> None:
        gcp.google.role.listed.discard("resourcemanager.tagValueBindings.create")
        found = await told(gcp, {"TAGS": "team=blue"})
        assert "lacks resourcemanager.tagValueBindings.create in tagValues/12" in found
        assert "roles/resourcemanager.tagUser" in found

    async def test_the_pod_vms_account(self, gcp: World) -> None:
        """A grant on the account itself cannot be seen from the project: it is a warning."""
        settings = {"GCP_PODVM_SERVICE_ACCOUNT": ACCOUNT}
        assert f"roles/iam.serviceAccountUser on {ACCOUNT}" in await told(gcp, settings)
        assert "error" not in await told(gcp, settings)
        gcp.google.role.listed.add(ACT_AS)
        assert await told(gcp, settings) == ""

    async def test_an_api_that_is_not_enabled(self, gcp: World) -> None:
        gcp.google.disabled.add("projects")
        assert "enable this API in GCP_PROJECT_ID" in await told(gcp)


class TestSurroundings:
    async def test_all_is_well(self, gcp: World) -> None:
        assert await told(gcp) == ""
        said = await told(gcp, also=Severity.OK)
        assert "podvm is for amd64, UEFI, and boots in n2d-standard-2 in europe-west3-a, TEE snp" in said
        assert "the forwarder (FORWARDER_PORT) is let in" in said
        assert "pods in europe-west3 has 250 free addresses" in said
        assert "the quotas of europe-west3 have room for 500 more pod VMs of n2d-standard-2; the least is N2D_" in said

    async def test_a_firewall_that_lets_nothing_in(self, gcp: World) -> None:
        gcp.cloud.firewalls.clear()
        found = await told(gcp)
        assert "no rule of the network lets tcp 15150 in, which is the forwarder (FORWARDER_PORT)" in found
        assert "udp 4789 in, which is the pod network (VXLAN_PORT)" in found
        assert "GCP_NETWORK_TAGS" in found

    async def test_a_firewall_that_lets_in_what_has_a_tag(self, gcp: World) -> None:
        gcp.cloud.firewalls[0]["targetTags"] = ["podvm"]
        assert "lets tcp 15150 in" in await told(gcp)
        assert await told(gcp, {"GCP_NETWORK_TAGS": "podvm"}) == ""

    async def test_a_rule_and_a_policy_that_keep_it_out(self, gcp: World) -> None:
        deny = {"name": "shut", "priority": 900, "denied": [{"IPProtocol": "tcp"}], "direction": "INGRESS"}
        gcp.cloud.firewalls.append(deny)
        assert "the rule shut keeps tcp 15150 out" in await told(gcp)
        assert "udp" not in await told(gcp)
        gcp.cloud.firewalls.remove(deny)
        match = {"srcIpRanges": ["0.0.0.0/0"], "layer4Configs": [{"ipProtocol": "all"}]}
        rule = {"action": "deny", "priority": 7, "direction": "INGRESS", "match": match}
        gcp.cloud.policies.append({"shortName": "org", "type": "HIERARCHY", "rules": [rule]})
        assert "the rule org 7 keeps udp 4789 out" in await told(gcp)

    async def test_few_addresses(self, gcp: World) -> None:
        gcp.cloud.free_addresses = 3
        assert "warning subnetwork: pods in europe-west3 has 3 free addresses" in await told(gcp)
        gcp.cloud.free_addresses = 0
        assert "error subnetwork: pods in europe-west3 has 0 free addresses" in await told(gcp)

    async def test_the_subnetworks_of_every_region_and_interface(self, gcp: World) -> None:
        settings = {
            "FALLBACK_ZONES": "europe-west3-b,europe-west4-a",
            "EXTERNAL_NETWORK_VIA_PODVM": "true",
            "GCP_EXTERNAL_NETWORK": "outside",
        }
        said = await told(gcp, settings, also=Severity.OK)
        for name, region in (("pods", "3"), ("pods", "4"), ("outside", "3"), ("outside", "4")):
            assert f"{name} in europe-west{region} has 250 free" in said

    @pytest.mark.parametrize(
        ("setting", "nowhere"),
        [
            ("GCP_SUBNETWORK", "nowhere"),
            ("GCP_NETWORK", "nowhere"),
            ("GCP_ZONE", "europe-west9-a"),
            ("GCP_PROJECT_ID", "no-project"),
            ("PODVM_IMAGE_NAME", "nowhere"),
            ("PODVM_IMAGE_NAME", "no image"),
        ],
    )
    async def test_a_name_that_does_not_exist(self, gcp: World, setting: str, nowhere: str) -> None:
        assert setting in await told(gcp, {setting: nowhere})

    async def test_a_network_that_is_not_of_automatic_mode(self, gcp: World) -> None:
        gcp.cloud.subnetworks.discard(SUBNETWORK)
        assert "see GCP_SUBNETWORK, which only networks of automatic mode do without" in await told(
            gcp, {"GCP_SUBNETWORK": ""}
        )

    async def test_types_that_no_pod_can_have(self, gcp: World) -> None:
        found = await told(gcp, {"GCP_INSTANCE_TYPES": "t9-huge,e2-medium"})
        assert "t9-huge does not exist in our zones" in found
        assert "e2-medium has no TEE; no pod gets it while DISABLECVM is false" in found

    async def test_a_type_that_cannot_be_confidential(self, gcp: World) -> None:
        """The reference's defaults, which fail with the first pod (providers.md 1.3)."""
        assert "DISABLECVM=true" in await told(gcp, {"GCP_MACHINE_TYPE": "e2-medium"})

    async def test_an_image_that_does_not_fit(self, gcp: World) -> None:
        assert "SEV_SNP_CAPABLE" in await told(gcp, {"PODVM_IMAGE_NAME": "podvm-plain"})
        assert "is for arm64" in await told(gcp, {"PODVM_IMAGE_NAME": "podvm-arm"})
        settings = {"PODVM_IMAGE_NAME": "podvm-bios", "DISABLECVM": "true", "ENABLE_SECURE_BOOT": "true"}
        assert "ENABLE_SECURE_BOOT" in await told(gcp, settings)
        gcp.cloud.images["projects/demo-project/global/images/podvm"]["status"] = "PENDING"
        assert "podvm is PENDING" in await told(gcp)

    async def test_a_zone_without_the_gpu(self, gcp: World) -> None:
        settings = {"GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4", "FALLBACK_ZONES": "europe-west3-b"}
        assert "europe-west3-b has no nvidia-tesla-t4" in await told(gcp, settings)
        assert "europe-west3-a has no" not in await told(gcp, settings)


class TestQuota:
    async def test_little_is_left(self, gcp: World) -> None:
        gcp.cloud.quotas["N2D_CPUS"] = 9
        found = await told(gcp)
        assert "warning quota: the quotas of europe-west3 have room for 4 more pod VMs of n2d-standard-2; the" in found
        assert "ask Google to raise N2D_CPUS in europe-west3" in found

    @pytest.mark.parametrize(
        ("metric", "settings"),
        [
            ("INSTANCES", {}),
            ("N2D_CPUS", {}),
            ("C3_CPUS", {"GCP_MACHINE_TYPE": "c3-standard-4"}),
            ("CPUS", {"GCP_MACHINE_TYPE": "e2-medium", "DISABLECVM": "true"}),
            ("IN_USE_ADDRESSES", {"USE_PUBLIC_IP": "true"}),
            ("DISKS_TOTAL_GB", {}),
            ("SSD_TOTAL_GB", {"GCP_DISK_TYPE": "pd-ssd"}),
            (
                "NVIDIA_T4_GPUS",
                {
                    "GCP_MACHINE_TYPE": "n1-standard-8",
                    "DISABLECVM": "true",
                    "GCP_ACCELERATORS": "n1-standard-8=nvidia-tesla-t4:2",
                },
            ),
        ],
    )
    async def test_nothing_is_left(self, gcp: World, metric: str, settings: dict[str, str]) -> None:
        """What a launch would then be told, too."""
        gcp.cloud.quotas[metric] = 0
        found = await told(gcp, settings)
        assert f"the least is {metric} -> ask Google to raise {metric} in europe-west3" in found
        assert found.startswith("error quota")
        with pytest.raises(QuotaError, match=f"quotaExceeded: Quota '{metric}' exceeded"):
            await launched(gcp, settings)


class TestDoctor:
    """`caa doctor`, as an operator calls it."""

    async def doctor(self, gcp: World, **settings: str) -> tuple[int, str]:
        environ = gcp.environ(**settings) | {"CLOUD_PROVIDER": "gcp"}
        run = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "caa",
            "doctor",
            env=environ,
            stdout=PIPE,
            stderr=PIPE,
            cwd=Path(__file__).parents[2],
        )
        said, logged = await run.communicate()
        assert run.returncode is not None
        assert "PRIVATE KEY" not in (said + logged).decode()
        return run.returncode, said.decode()

    async def test_all_is_well(self, gcp: World) -> None:
        status, said = await self.doctor(gcp)
        assert status == 0, said
        assert said.startswith("ok      permissions: all 15 are there in the project demo-project\n")

    async def test_what_is_wrong_and_what_to_do(self, gcp: World) -> None:
        gcp.cloud.firewalls.clear()
        status, said = await self.doctor(gcp)
        assert status == 1
        assert (
            "error   firewall: no rule of the network lets tcp 15150 in, which is the forwarder (FORWARDER_PORT)\n"
            "        -> allow tcp 15150 from the nodes, for the tags of GCP_NETWORK_TAGS or for all\n"
        ) in said
