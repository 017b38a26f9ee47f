"""Resources of a container: what Kata sends becomes the OCI object, and zero is "not set"."""

from pathlib import Path

from caa.testing import traces
from caa.testing.agent import resources
from caa.wire.proto import agent

TRACES = Path(__file__).resolve().parents[3] / "tests/data/traces"


def test_nothing_given_is_nothing_said() -> None:
    assert resources.convert(agent.LinuxResources()) == {}


def test_a_rule_for_all_devices_keeps_its_verdict() -> None:
    given = agent.LinuxResources()
    given.Devices.add(Access="rwm")
    given.Devices.add(Type="b", Major=8)
    assert resources.convert(given) == {
        "devices": [{"allow": False, "access": "rwm"}, {"allow": False, "type": "b", "major": 8}]
    }


def test_memory_and_real_time() -> None:
    given = agent.LinuxResources()
    given.Memory.Limit, given.Memory.Reservation, given.Memory.Swap = 1 << 30, 1 << 20, -1
    given.Memory.Kernel, given.Memory.KernelTCP, given.Memory.Swappiness = 5, 6, 60
    given.Memory.DisableOOMKiller = True
    given.CPU.RealtimeRuntime, given.CPU.RealtimePeriod, given.CPU.Mems = 95, 100, "0"
    assert resources.convert(given) == {
        "memory": {
            "limit": 1 << 30,
            "reservation": 1 << 20,
            "swap": -1,
            "kernel": 5,
            "kernelTCP": 6,
            "swappiness": 60,
            "disableOOMKiller": True,
        },
        "cpu": {"realtimeRuntime": 95, "realtimePeriod": 100, "mems": "0"},
    }


def test_every_throttle_has_its_own_key() -> None:
    given = agent.LinuxResources()
    names = ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
    for minor, name in enumerate(names):
        getattr(given.BlockIO, f"Throttle{name}Device").add(Major=8, Minor=minor, Rate=100 + minor)
    given.BlockIO.WeightDevice.add(Major=8, Minor=1, LeafWeight=7)
    assert resources.convert(given) == {
        "blockIO": {
            "weightDevice": [{"major": 8, "minor": 1, "leafWeight": 7}],
            **{
                f"throttle{name}Device": [{"major": 8, "minor": minor, "rate": 100 + minor}]
                for minor, name in enumerate(names)
            },
        }
    }


def test_recorded_update() -> None:
    frames = traces.frames(traces.read(TRACES / "normal.jsonl"), "agent")
    (update,) = [frame.message() for frame in frames if frame.method == "UpdateContainer" and frame.to_agent]
    assert isinstance(update, agent.UpdateContainerRequest)
    assert resources.convert(update.resources) == {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 268435456, "swap": 268435456},
        "cpu": {"shares": 512},
    }


def test_every_kind_of_resource() -> None:
    given = agent.LinuxResources()
    given.Devices.add(Allow=True, Type="c", Major=1, Minor=3, Access="rw")
    given.CPU.Quota, given.CPU.Period, given.CPU.Cpus = 50000, 100000, "0-1"
    given.Pids.Limit = -1
    given.BlockIO.Weight = 10
    given.BlockIO.ThrottleReadBpsDevice.add(Major=8, Minor=0, Rate=1000)
    given.BlockIO.WeightDevice.add(Major=8, Minor=16, Weight=20)
    given.HugepageLimits.add(Pagesize="2MB", Limit=4096)
    given.Network.ClassID = 7
    given.Network.Priorities.add(Name="eth0", Priority=3)
    assert resources.convert(given) == {
        "devices": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
        "cpu": {"quota": 50000, "period": 100000, "cpus": "0-1"},
        "pids": {"limit": -1},
        "blockIO": {
            "weight": 10,
            "weightDevice": [{"major": 8, "minor": 16, "weight": 20}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 3}]},
    }
