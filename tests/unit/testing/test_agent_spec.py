"""A Kata specification becomes the configuration that runc takes."""

from pathlib import Path
from typing import Any

import pytest

from caa.testing import traces
from caa.testing.agent import spec
from caa.testing.agent.spec import Allowance, Placement
from caa.wire.proto import agent

TRACES = Path(__file__).resolve().parents[3] / "tests/data/traces"
PLACE = Placement(rootfs="/rootfs", cgroup="/caa/s/c", namespaces={"mount": "", "uts": "/proc/7/ns/uts", "pid": ""})


def recorded(name: str, index: int = 1) -> agent.CreateContainerRequest:
    frames = traces.frames(traces.read(TRACES / f"{name}.jsonl"), "agent")
    found = [frame for frame in frames if frame.method == "CreateContainer" and frame.to_agent][index].message()
    assert isinstance(found, agent.CreateContainerRequest)
    return found


def config(request: agent.CreateContainerRequest, allowance: Allowance | None = None) -> dict[str, Any]:
    return spec.config(request.OCI, placement=PLACE, allowance=allowance or Allowance())


def test_a_recorded_container() -> None:
    made = config(recorded("normal"))
    assert made["process"]["args"] == ["/bin/sh", "-c", "echo hello; echo oops >&2; sleep 1000"]
    assert made["process"]["env"][0] == "PATH=/bin"
    assert made["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert made["root"] == {"path": "/rootfs", "readonly": False}
    assert made["linux"]["cgroupsPath"] == "/caa/s/c"
    assert made["mounts"][0] == {
        "destination": "/proc",
        "type": "proc",
        "source": "proc",
        "options": ["nosuid", "noexec", "nodev"],
    }
    assert "hostname" not in made
    assert "seccomp" not in made["linux"]


def test_a_recorded_pause_container() -> None:
    made = config(recorded("normal", 0))
    assert made["root"]["readonly"] is True
    assert made["hostname"] == "normal42477"
    assert made["process"]["noNewPrivileges"] is True
    assert made["linux"]["resources"] == {"cpu": {"shares": 2}}
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    assert "/proc/sys" in made["linux"]["readonlyPaths"]


def test_both_shims_lead_to_the_same_capabilities_and_namespaces() -> None:
    go, rs = config(recorded("normal")), config(recorded("normal-rs"))
    for kind in ("bounding", "effective", "permitted"):
        assert sorted(go["process"]["capabilities"][kind]) == sorted(rs["process"]["capabilities"][kind])
    assert go["linux"]["namespaces"] == rs["linux"]["namespaces"]
    assert "CAP_CHOWN" in go["process"]["capabilities"]["bounding"]


def test_namespaces_are_named_once_and_the_requests_path_wins() -> None:
    request = agent.CreateContainerRequest()
    for kind, path in (("mnt", ""), ("network", "/run/netns/podns"), ("uts", ""), ("pid", "/proc/1/ns/pid")):
        request.OCI.Linux.Namespaces.add(Type=kind, Path=path)
    assert {one["type"]: one.get("path") for one in config(request)["linux"]["namespaces"]} == {
        "mount": None,
        "uts": "/proc/7/ns/uts",
        "pid": "/proc/1/ns/pid",
        "network": "/run/netns/podns",
    }


def test_what_we_may_not_give_is_left_out_or_lowered() -> None:
    request = agent.CreateContainerRequest()
    process = request.OCI.Process
    process.Capabilities.Bounding.extend(["CAP_CHOWN", "SYS_RESOURCE"])
    process.Rlimits.add(Type="RLIMIT_NOFILE", Hard=1 << 20, Soft=1 << 20)
    process.Rlimits.add(Type="RLIMIT_CORE", Hard=0, Soft=0)
    process.OOMScoreAdj = -997
    allowance = Allowance(capabilities=frozenset({"CAP_CHOWN"}), rlimits={"RLIMIT_NOFILE": 20000}, oom_score_adj=100)
    made = config(request, allowance)["process"]
    assert made["capabilities"] == {"bounding": ["CAP_CHOWN"]}
    assert made["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000},
        {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
    ]
    assert made["oomScoreAdj"] == 100


def test_a_terminal_has_its_size() -> None:
    process = agent.Process(Terminal=True, Args=["sh"], ConsoleSize=agent.Box(Height=24, Width=80))
    made = spec.process(process, allowance=Allowance())
    assert made["terminal"] is True
    assert made["consoleSize"] == {"height": 24, "width": 80}
    assert made["cwd"] == "/"
    assert "capabilities" not in made  # absent, so that an exec takes the container's


def test_seccomp_sysctl_devices_and_mappings() -> None:
    request = agent.CreateContainerRequest()
    linux = request.OCI.Linux
    linux.Sysctl["net.core.somaxconn"] = "1024"
    linux.Devices.add(Path="/dev/fuse", Type="c", Major=10, Minor=229, FileMode=0o666)
    linux.UIDMappings.add(HostID=1000, ContainerID=0, Size=10)
    linux.Seccomp.DefaultAction = "SCMP_ACT_ALLOW"
    call = linux.Seccomp.Syscalls.add(Names=["mount"], Action="SCMP_ACT_ERRNO", errnoret=0)
    call.Args.add(Index=0, Value=1, Op="SCMP_CMP_EQ")
    made = config(request)["linux"]
    assert made["sysctl"] == {"net.core.somaxconn": "1024"}
    assert made["devices"][0]["minor"] == 229
    assert made["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 10}]
    (syscall,) = made["seccomp"]["syscalls"]
    assert syscall["errnoRet"] == 0  # zero is said, and not the same as nothing
    assert syscall["args"] == [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]


def test_hooks_never_run() -> None:
    request = agent.CreateContainerRequest()
    request.OCI.Hooks.Prestart.add(Path="/bin/evil")
    assert "hooks" not in config(request)


@pytest.mark.parametrize("name", ["CHOWN", "CAP_CHOWN"])
def test_capability_names(name: str) -> None:
    assert spec.capability(name) == "CAP_CHOWN"
