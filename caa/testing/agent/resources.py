"""A container's resources: Kata's protobuf `LinuxResources` to the OCI object, for create and update. Pure."""

from collections.abc import Iterable
from typing import Any

from caa.wire.proto import agent


def convert(resources: agent.LinuxResources) -> dict[str, Any]:
    """The OCI `resources` object; zero means "not set", as protobuf has no other word for it."""
    return _given(
        devices=[_device_rule(rule) for rule in resources.Devices],
        memory=_memory(resources.Memory),
        cpu=_cpu(resources.CPU),
        pids=_given(limit=resources.Pids.Limit),
        blockIO=_block_io(resources.BlockIO),
        hugepageLimits=[{"pageSize": page.Pagesize, "limit": page.Limit} for page in resources.HugepageLimits],
        network=_network(resources.Network),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _device_rule(rule: agent.LinuxDeviceCgroup) -> dict[str, Any]:
    # A rule without a type is for all devices; 0:0 then is a wildcard that OCI expresses by absence.
    return {
        "allow": rule.Allow,
        **_given(type=rule.Type, major=rule.Major, minor=rule.Minor, access=rule.Access),
    }


def _memory(memory: agent.LinuxMemory) -> dict[str, Any]:
    return _given(
        limit=memory.Limit,
        reservation=memory.Reservation,
        swap=memory.Swap,
        kernel=memory.Kernel,
        kernelTCP=memory.KernelTCP,
        swappiness=memory.Swappiness,
        disableOOMKiller=memory.DisableOOMKiller,
    )


def _cpu(cpu: agent.LinuxCPU) -> dict[str, Any]:
    return _given(
        shares=cpu.Shares,
        quota=cpu.Quota,
        period=cpu.Period,
        realtimeRuntime=cpu.RealtimeRuntime,
        realtimePeriod=cpu.RealtimePeriod,
        cpus=cpu.Cpus,
        mems=cpu.Mems,
    )


def _block_io(block: agent.LinuxBlockIO) -> dict[str, Any]:
    return _given(
        weight=block.Weight,
        leafWeight=block.LeafWeight,
        weightDevice=[_weight(device) for device in block.WeightDevice],
        throttleReadBpsDevice=_throttles(block.ThrottleReadBpsDevice),
        throttleWriteBpsDevice=_throttles(block.ThrottleWriteBpsDevice),
        throttleReadIOPSDevice=_throttles(block.ThrottleReadIOPSDevice),
        throttleWriteIOPSDevice=_throttles(block.ThrottleWriteIOPSDevice),
    )


def _weight(device: agent.LinuxWeightDevice) -> dict[str, int]:
    own = _given(weight=device.Weight, leafWeight=device.LeafWeight)
    return {"major": device.Major, "minor": device.Minor, **own}


def _throttles(devices: Iterable[agent.LinuxThrottleDevice]) -> list[dict[str, int]]:
    return [{"major": device.Major, "minor": device.Minor, "rate": device.Rate} for device in devices]


def _network(network: agent.LinuxNetwork) -> dict[str, Any]:
    priorities = [{"name": entry.Name, "priority": entry.Priority} for entry in network.Priorities]
    return _given(classID=network.ClassID, priorities=priorities)
