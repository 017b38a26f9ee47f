"""Pure: how many more pod VMs the project's quotas leave room for in a region, as `regions.get` tells."""

from collections.abc import Mapping
from typing import Any

from caa.config.load import Settings
from caa.model.instance import InstanceType
from caa.provider.rows import USE_PUBLIC_IP
from providers.gcp import settings as rows
from providers.gcp.shapes import accelerators
from providers.gcp.translate import disk_type

_OF_ALL = frozenset({"e2", "f1", "g1", "n1"})  # families that share the metric CPUS
_DISKS = (("pd-standard", "DISKS_TOTAL_GB"), ("hyperdisk-", "HDB_TOTAL_GB"), ("pd-", "SSD_TOTAL_GB"))


def needs(values: Settings, kind: InstanceType, *, root_gib: int) -> dict[str, float]:
    """What one more pod VM of this type takes, by the metric's name. Families that Google counts elsewhere (Cloud
    Quotas) have a metric that no region tells of."""
    family = kind.name.partition("-")[0]
    found = {"INSTANCES": 1.0, "CPUS" if family in _OF_ALL else f"{family.upper()}_CPUS": float(kind.vcpus)}
    disk = disk_type(values, kind.name)
    found |= {next((metric for start, metric in _DISKS if disk.startswith(start)), "DISKS_TOTAL_GB"): float(root_gib)}
    if values[USE_PUBLIC_IP]:
        found["IN_USE_ADDRESSES"] = 1.0
    if gpus := accelerators(values[rows.ACCELERATORS]).get(kind.name):
        model = gpus[0].removeprefix("nvidia-").removeprefix("tesla-").replace("-", "_").upper()
        found[f"NVIDIA_{model}_GPUS"] = float(gpus[1])
    return found


def left(region: Mapping[str, Any], needed: Mapping[str, float]) -> dict[str, int]:
    """For how many more pod VMs each metric leaves room; metrics that the region does not tell are left out."""
    known = {str(one.get("metric")): one for one in region.get("quotas") or ()}
    return {
        metric: max(0, int((float(known[metric].get("limit", 0)) - float(known[metric].get("usage", 0))) // number))
        for metric, number in needed.items()
        if metric in known and number
    }
