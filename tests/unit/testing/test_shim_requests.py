"""The stand-in shims fill their requests as the real ones were recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from caa.testing import traces
from caa.testing.shim import ContainerOptions, Kind, PodOptions, requests
from caa.testing.shim.kinds import habits
from caa.wire.proto import agent

TRACES = Path(__file__).resolve().parents[3] / "tests/data/traces"
CASES = [(Kind.GO, "normal"), (Kind.RS, "normal-rs")]


def sent(name: str, method: str, index: int = 0) -> Any:
    side: traces.Side = "hypervisor" if method.endswith("VM") else "agent"
    found = [frame for frame in traces.frames(traces.read(TRACES / f"{name}.jsonl"), side) if frame.to_agent]
    return [frame.message() for frame in found if frame.method == method][index]


def pod_of(name: str) -> tuple[PodOptions, str]:
    created = sent(name, "CreateVM")
    annotations = created.annotations
    options = PodOptions(
        name=annotations[requests.SANDBOX_NAME],
        namespace=annotations[requests.SANDBOX_NAMESPACE],
        netns=created.networkNamespacePath,
        resolv_conf="nameserver 10.255.255.53\n",
    )
    return options, created.id


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_create_vm_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    pod, sandbox = pod_of(name)
    assert requests.create_vm(pod, sandbox, habits=habits(kind)) == sent(name, "CreateVM")


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_create_sandbox_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    pod, sandbox = pod_of(name)
    assert requests.create_sandbox(pod, sandbox) == sent(name, "CreateSandbox")


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_copy_file_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    recorded = sent(name, "CopyFile")
    assert [*requests.copy_file(recorded.path, recorded.data, habits=habits(kind))] == [recorded]


def test_a_large_file_travels_in_chunks_and_an_empty_one_in_one() -> None:
    chunks = list(requests.copy_file("/f", b"x" * 2_500_000, habits=habits(Kind.GO)))
    assert [(chunk.offset, len(chunk.data)) for chunk in chunks] == [
        (0, 1048576),
        (1048576, 1048576),
        (2097152, 402848),
    ]
    assert {chunk.file_size for chunk in chunks} == {2_500_000}
    assert len(list(requests.copy_file("/f", b"", habits=habits(Kind.GO)))) == 1


def normal_form(request: agent.CreateContainerRequest) -> Message:
    """Without what names a lab or has no order."""
    copy = agent.CreateContainerRequest()
    copy.CopyFrom(request)
    caps = copy.OCI.Process.Capabilities
    for names in (caps.Bounding, caps.Effective, caps.Permitted):
        names[:] = sorted(names)
    sources = [mount.destination for mount in copy.OCI.Mounts if mount.source.startswith(requests.SHARED)]
    mounts = [mount for mount in copy.OCI.Mounts if mount.destination not in sources]
    mounts.sort(key=lambda mount: mount.destination)
    del copy.OCI.Mounts[:]
    seen: list[str] = []
    for mount in mounts:
        # The real shims name /dev/shm of the pause container twice.
        if mount.destination not in seen:
            seen.append(mount.destination)
            copy.OCI.Mounts.append(mount)
    (storage,) = copy.storages
    keys = json.loads(storage.driver_options[0].partition("=")[2])["metadata"]
    storage.driver_options[:] = sorted(keys)
    for key in list(copy.OCI.Annotations):
        copy.OCI.Annotations[key] = ""
    copy.OCI.Linux.CgroupsPath = ""
    copy.sandbox_pidns = False
    return copy


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_pause_container_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    pod, sandbox = pod_of(name)
    recorded = sent(name, "CreateContainer")
    ours = requests.pause(pod, sandbox, habits=habits(kind), files={})
    ours.OCI.Process.Args[:] = recorded.OCI.Process.Args
    assert normal_form(ours) == normal_form(recorded)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_container_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    pod, sandbox = pod_of(name)
    recorded = sent(name, "CreateContainer", 1)
    process = recorded.OCI.Process
    options = ContainerOptions(
        name="c1", args=tuple(process.Args), env=tuple(process.Env), image="docker.io/local/busybox:1"
    )
    ours = requests.container(options, recorded.container_id, pod=pod, sandbox=sandbox, habits=habits(kind))
    assert normal_form(ours) == normal_form(recorded)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_exec_is_what_the_real_shim_sent(kind: Kind, name: str) -> None:
    recorded = sent(name, "ExecProcess")
    process = recorded.process
    options = ContainerOptions(name="exec", args=tuple(process.Args), env=tuple(process.Env))
    assert requests.execute(recorded.container_id, recorded.exec_id, options=options) == recorded
