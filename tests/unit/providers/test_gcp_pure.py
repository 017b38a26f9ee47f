"""What `providers.gcp.shapes` and `translate` decide without any cloud."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.config.load import load
from caa.errors import ConfigError, InvalidRequest, Misconfigured
from caa.model.instance import InstanceState, InstanceType, Tee
from providers.gcp import SETTINGS, quota, shapes, translate

PARTIAL: dict[str, st.SearchStrategy[Any]] = {
    "name": st.just("podvm-a"),
    "labels": st.sampled_from([{}, {"caa-cluster": "c"}, {"caa-node": "n"}]),
    "networkInterfaces": st.sampled_from([[], [{}], [{"accessConfigs": [{}], "ipv6AccessConfigs": [{}]}]]),
    "creationTimestamp": st.sampled_from(["", "yesterday", "2026-11-24T02:00:00.000-08:00"]),
    "zone": st.sampled_from(["", "a-b1-c", "https://www.googleapis.com/compute/v1/projects/p/zones/a-b1-c"]),
    "status": st.sampled_from(["", "A_NEW_WORD"]),
    "users": st.just([]),
}


@pytest.mark.parametrize(
    ("name", "tees", "best"),
    [
        ("n2d-standard-2", {Tee.SEV, Tee.SNP}, Tee.SNP),
        ("n2d-custom-2-4096", {Tee.SEV, Tee.SNP}, Tee.SNP),
        ("c3-standard-4", {Tee.TDX}, Tee.TDX),
        ("c3-standard-4-lssd", set(), Tee.NONE),
        ("c3-highmem-4", set(), Tee.NONE),
        ("c3d-standard-4", {Tee.SEV}, Tee.SEV),
        ("a3-highgpu-1g", {Tee.TDX}, Tee.TDX),
        ("a3-highgpu-8g", set(), Tee.NONE),
        ("e2-medium", set(), Tee.NONE),
    ],
)
def test_the_tees_of_machine_types(name: str, tees: set[Tee], best: Tee) -> None:
    assert shapes.tees(name) == tees
    assert shapes.strongest(shapes.tees(name)) is best


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PROVISIONING", InstanceState.RUNNING),
        ("RUNNING", InstanceState.RUNNING),
        ("REPAIRING", InstanceState.RUNNING),
        ("STOPPING", InstanceState.STOPPED),
        ("TERMINATED", InstanceState.STOPPED),
        ("SUSPENDED", InstanceState.STOPPED),
        ("A_NEW_WORD", InstanceState.UNKNOWN),
        ("", InstanceState.UNKNOWN),
    ],
)
def test_only_what_the_cloud_says_ends_a_pod(status: str, state: InstanceState) -> None:
    assert shapes.state({"status": status}) is state


def test_accelerators() -> None:
    assert shapes.accelerators({"a": "nvidia-l4", "b": "nvidia-tesla-t4:4"}) == {
        "a": ("nvidia-l4", 1),
        "b": ("nvidia-tesla-t4", 4),
    }
    with pytest.raises(ConfigError, match="GCP_ACCELERATORS"):
        shapes.accelerators({"a": "nvidia-l4:0"})


def test_paths_of_networks_and_images() -> None:
    assert translate.network_path("pods", "p-1") == "projects/p-1/global/networks/pods"
    assert translate.network_path("global/networks/pods", "p-1") == "projects/p-1/global/networks/pods"
    assert translate.network_path("https://x/compute/v1/projects/h/global/networks/n", "p-1").startswith("projects/h/")
    assert translate.subnetwork_path("s", "p-1", zone="us-east1-b") == "projects/p-1/regions/us-east1/subnetworks/s"
    with pytest.raises(Misconfigured, match="FALLBACK_ZONES"):
        translate.subnetwork_path("projects/p-1/regions/us-east4/subnetworks/s", "p-1", zone="us-east1-b")
    assert translate.image_path("i", "p-1") == "projects/p-1/global/images/i"


def test_volumes() -> None:
    zonal, regional = "projects/p-1/zones/us-east1-b/disks/d", "projects/p-1/regions/us-east1/disks/d"
    translate.refuse_volumes([zonal, regional], confidential=True)
    for bad in (["vol-1"], [zonal, zonal], [zonal, f"/{zonal}"], ["projects/p-1/zones/z/disks/../x"]):
        with pytest.raises(InvalidRequest):
            translate.refuse_volumes(bad, confidential=True)
    many = [f"{zonal}{number}" for number in range(40)]
    translate.refuse_volumes(many, confidential=False)
    with pytest.raises(InvalidRequest, match="at most 39"):
        translate.refuse_volumes(many, confidential=True)


def test_filters() -> None:
    assert translate.by_labels({"a": "1", "b": "2"}) == '(labels.a = "1") AND (labels.b = "2")'


@given(st.fixed_dictionaries({}, optional=PARTIAL))
def test_no_reply_is_trusted_to_be_complete(found: dict[str, Any]) -> None:
    """The SDK keeps the types and leaves out what is not there: one without addresses, and not ours without labels."""
    made = shapes.instance(found, public=False)
    assert (made.addresses, made.sandbox) == ((), None)
    assert shapes.state(found) is InstanceState.UNKNOWN
    assert shapes.left_disk(found).sandbox is None
    assert shapes.zones_of_disk(found) == {str(found.get("zone", "")).rpartition("/")[2]}
    assert not shapes.is_machine_type(found)


def test_addresses_in_their_order() -> None:
    nics = [
        {"networkIP": "10.0.0.2", "ipv6Address": "fd20::2", "accessConfigs": [{"natIP": "192.0.2.1"}]},
        {
            "networkIP": "10.1.0.2",
            "accessConfigs": [{"natIP": "192.0.2.2"}],
            "ipv6AccessConfigs": [{"externalIpv6": "2001:db8::1"}],
        },
    ]
    private = [str(one) for one in shapes.instance({"networkInterfaces": nics}, public=False).addresses]
    assert private == ["10.0.0.2", "fd20::2", "10.1.0.2"]
    public = [str(one) for one in shapes.instance({"networkInterfaces": nics}, public=True).addresses]
    assert public == ["192.0.2.1", "192.0.2.2", "2001:db8::1", *private]
    nics[0]["accessConfigs"] = []
    assert shapes.instance({"networkInterfaces": nics}, public=True).addresses == ()


@pytest.mark.parametrize(
    ("reply", "zones"),
    [
        ({}, set()),
        ({"unreachables": ["projects/p/zones/a-b1-c", "projects/p/regions/a-b1"]}, {"a-b1-c"}),
        ({"items": {"zones/a-b1-c": {"warning": {"code": "UNREACHABLE"}}}}, {"a-b1-c"}),
        ({"items": {"zones/a-b1-c": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}, set()),
    ],
)
def test_zones_that_a_list_did_not_reach(reply: dict[str, object], zones: set[str]) -> None:
    assert shapes.unreachable([{}, reply]) == zones


@pytest.mark.parametrize(
    ("machine_type", "needed"),
    [
        ("e2-medium", {"INSTANCES": 1, "CPUS": 2, "DISKS_TOTAL_GB": 20}),
        ("n2d-standard-2", {"INSTANCES": 1, "N2D_CPUS": 2, "DISKS_TOTAL_GB": 20}),
        ("c3-standard-4", {"INSTANCES": 1, "C3_CPUS": 2, "SSD_TOTAL_GB": 20}),
        ("n4-standard-4", {"INSTANCES": 1, "N4_CPUS": 2, "HDB_TOTAL_GB": 20}),
    ],
)
def test_what_a_pod_vm_takes_of_the_quotas(machine_type: str, needed: dict[str, float]) -> None:
    kind = InstanceType(name=machine_type, vcpus=2, memory_mib=4096)
    settings = load(SETTINGS, {"GCP_PROJECT_ID": "demo-project", "GCP_ZONE": "a-b1-c", "GCP_NETWORK": "n"})
    assert quota.needs(settings, kind, root_gib=20) == needed


def test_what_is_left_of_the_quotas() -> None:
    quotas = [{"metric": "INSTANCES", "limit": 10.0, "usage": 7.0}, {"metric": "CPUS", "limit": 5.0, "usage": 9.0}]
    needed = {"INSTANCES": 1.0, "CPUS": 2.0, "UNTOLD": 1.0}
    assert quota.left({"quotas": quotas}, needed) == {"INSTANCES": 3, "CPUS": 0}
    assert quota.left({}, needed) == {}
