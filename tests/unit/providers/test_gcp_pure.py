"""What `providers.gcp.shapes` and `translate` decide without any cloud."""

import pytest

from caa.errors import ConfigError, InvalidRequest, Misconfigured
from caa.model.instance import InstanceState, Tee
from providers.gcp import shapes, translate


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
