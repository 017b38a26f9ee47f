"""The node's services on a real socket: a pod's life, and every bad input with the error that it earns."""

import asyncio
import base64
import re
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CaaError, Code, Unavailable
from caa.wire.client import connect
from caa.wire.proto import hypervisor, podvminfo
from caa.wire.status import RpcError

SANDBOX = "a" * 64
HYPERVISOR, INFO = "hypervisor.Hypervisor", "podvminfo.PodVMInfo"
PREFIX = "io.katacontainers.config.hypervisor."
POD = {"io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.sandbox-namespace": "prod"}
INITDATA = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = ""\n'


async def create(node: Any, sandbox: str = SANDBOX, *, netns: str | None = None, **annotations: str) -> str:
    request = hypervisor.CreateVMRequest(
        id=sandbox,
        annotations=POD | {PREFIX + key: value for key, value in annotations.items()},
        networkNamespacePath=node.netns if netns is None else netns,
    )
    answer = await node.client.call(f"{HYPERVISOR}/CreateVM", request)
    return str(answer.agentSocketPath)


async def start(node: Any, sandbox: str = SANDBOX, timeout: float | None = 30) -> None:
    await node.client.call(f"{HYPERVISOR}/StartVM", hypervisor.StartVMRequest(id=sandbox), timeout=timeout)


async def stop(node: Any, sandbox: str = SANDBOX, timeout: float | None = None) -> None:
    await node.client.call(f"{HYPERVISOR}/StopVM", hypervisor.StopVMRequest(id=sandbox), timeout=timeout)


async def info(node: Any, *, wait: bool, timeout: float | None = None, pod: str = "web") -> str:
    request = podvminfo.GetInfoRequest(PodName=pod, PodNamespace="prod", Wait=wait)
    return str((await node.client.call(f"{INFO}/GetInfo", request, timeout=timeout)).VMID)


async def test_a_pod_lives_and_goes(node: Any) -> None:
    path = await create(node)
    assert path == str(node.folder / "pods" / SANDBOX / "agent.ttrpc")
    await start(node)
    assert list(node.cloud.living) == ["i-podvm-web-aaaaaaaa"]
    assert await info(node, wait=False) == "i-podvm-web-aaaaaaaa"
    link = node.relay.links[SANDBOX]
    assert (link.server_name, link.port, list(link.addresses)) == ("podvm-web-aaaaaaaa", 15150, ["127.0.0.1"])
    files = [Path(one) for one in (link.ca_file, link.cert_file, link.key_file)]
    assert await asyncio.to_thread(lambda: all(one.is_file() for one in files))
    assert 0 < node.relay.timeouts[0] <= 30
    for _ in range(3):
        await stop(node, timeout=0.9)
    assert await node.empty()


async def test_the_user_data_and_only_it_holds_the_key(node: Any) -> None:
    await create(node, cc_init_data=INITDATA)
    await start(node)
    (request,) = node.cloud.living.values()
    text = request.user_data.decode()
    assert text.startswith("#cloud-config")
    assert "/run/peerpod/apf.json" in text
    assert "/run/peerpod/initdata" in text
    assert "PRIVATE KEY" in text
    on_disk = [one.read_bytes() for one in node.folder.rglob("*") if one.is_file() and one.parent.name != "tls"]
    assert not any(b"PRIVATE KEY" in content for content in on_disk)


async def test_the_line_that_operators_tests_look_for(node: Any) -> None:
    await create(node)
    (line,) = node.log.getvalue().splitlines()
    wanted = r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[adaptor/cloud\] create a sandbox [0-9a-f]{64} for pod web"
    assert re.match(wanted + " in namespace prod ", line)
    assert line.endswith(f"(netns: {node.netns})")


async def test_version(node: Any) -> None:
    answer = await node.client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(version="1"))
    assert answer.version == "0.0.0"


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [("", "needs a sandbox id"), ("a/b", "not valid"), ("x" * 300, "300 characters"), ("..", "valid")],
)
async def test_an_id_that_is_none(node: Any, sandbox: str, words: str) -> None:
    for act in (create, start, stop):
        with pytest.raises(RpcError, match=words) as refused:
            await act(node, sandbox)
        assert refused.value.code is Code.INVALID_ARGUMENT
    assert await node.empty()


async def test_an_id_whose_socket_would_have_too_long_a_path(node: Any) -> None:
    with pytest.raises(RpcError, match="at most 107"):
        await create(node, "x" * 128)
    assert await node.empty()


@pytest.mark.parametrize(
    ("netns", "words"),
    [("", "networkNamespacePath"), ("/run/netns/none", "does not exist"), ("netns", "not an absolute path")],
)
async def test_a_network_namespace_that_is_none(node: Any, netns: str, words: str) -> None:
    with pytest.raises(RpcError, match=words) as refused:
        await create(node, netns=netns)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert await node.empty()


@pytest.mark.parametrize(
    "text",
    ["not toml =", INITDATA.replace("sha256", "md5"), INITDATA + "#" * (2 << 20), base64.b64encode(b"x").decode()],
    ids=["no-toml", "algorithm", "2MiB", "base64"],
)
async def test_initdata_that_is_none(node: Any, text: str) -> None:
    with pytest.raises(RpcError, match="cc_init_data") as refused:
        await create(node, cc_init_data=text)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert await node.empty()


@pytest.mark.parametrize(
    ("annotations", "words"),
    [({"default_vcpus": "many"}, "default_vcpus"), ({"default_memory": "-1"}, "default_memory")],
)
async def test_an_annotation_that_is_none(node: Any, annotations: dict[str, str], words: str) -> None:
    with pytest.raises(RpcError, match=words):
        await create(node, **annotations)
    assert await node.empty()


async def test_start_of_the_unknown(node: Any) -> None:
    with pytest.raises(RpcError, match="not known") as refused:
        await start(node)
    assert refused.value.code is Code.NOT_FOUND


async def test_stop_of_the_unknown(node: Any) -> None:
    await stop(node, timeout=0.9)
    assert await node.empty()


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"machine_type": "huge"}, r'requested instance type \("huge"\) is not part of supported instance types list'),
        (
            {"default_vcpus": "64", "default_memory": "1024"},
            r"no instance type found for the given vcpus \(64\) and memory \(1024\)",
        ),
    ],
)
async def test_an_instance_type_that_is_not_allowed(node: Any, annotations: dict[str, str], words: str) -> None:
    await create(node, **annotations)
    with pytest.raises(RpcError, match=words) as refused:
        await start(node)
    assert refused.value.code is Code.INVALID_ARGUMENT
    await stop(node)
    assert await node.empty()


async def test_runtime_rs_of_a_pod_that_asks_nothing_gets_the_default_type(node: Any) -> None:
    await create(node, default_vcpus="1", default_memory="2048")
    await start(node)
    (request,) = node.cloud.living.values()
    assert (request.instance_type, request.sizing.vcpus) == ("", 0)


async def test_fractional_vcpus(node: Any) -> None:
    await create(node, default_vcpus="2.5", default_memory="2048")
    await start(node)
    (request,) = node.cloud.living.values()
    assert (request.instance_type, request.sizing.vcpus) == ("big", 3)


async def test_an_agent_that_cannot_be_reached(node: Any) -> None:
    node.relay.error = CaaError("the forwarder's certificate bears another name")
    await create(node)
    with pytest.raises(RpcError, match=r"could not reach the agent in the pod VM: .*another name \(.*console"):
        await start(node)
    assert node.cloud.living == {}
    await stop(node)
    assert await node.empty()


async def test_a_caller_that_goes_during_its_start(node: Any) -> None:
    node.cloud.hold = asyncio.Event()
    await create(node)
    other = await connect(node.socket)
    request = hypervisor.StartVMRequest(id=SANDBOX)
    starting = asyncio.create_task(other.call(f"{HYPERVISOR}/StartVM", request, timeout=60))
    await node.cloud.asked.wait()
    await other.close()
    with pytest.raises(Unavailable):
        await starting
    assert await gone(node)
    assert await node.empty()


async def gone(node: Any) -> bool:
    """The closing of a connection travels through the kernel: wait for what follows."""
    async with asyncio.timeout(10):
        while node.service.records():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return True


async def test_stop_while_start_is_pending_on_one_connection(node: Any) -> None:
    node.cloud.hold = asyncio.Event()
    await create(node)
    starting = asyncio.create_task(start(node))
    await node.cloud.asked.wait()
    await asyncio.gather(*(stop(node, timeout=0.9) for _ in range(3)))
    with pytest.raises(RpcError, match="StopVM overtook") as refused:
        await starting
    assert refused.value.code is Code.CANCELLED
    assert await node.empty()


async def test_a_start_longer_than_its_deadline_says_where_it_was(node: Any) -> None:
    node.cloud.hold = asyncio.Event()
    await create(node)
    with pytest.raises(CaaError, match="create the pod VM: the deadline of StartVM passed") as refused:
        await start(node, timeout=1.0)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
    await stop(node)
    assert await node.empty()


async def test_a_node_that_ends_answers_no_pending_start_and_keeps_its_record(node: Any) -> None:
    """The relay then sends the call to the next process, which undoes the start and takes it anew."""
    node.cloud.hold = asyncio.Event()
    await create(node)
    starting = asyncio.create_task(start(node))
    await node.cloud.asked.wait()
    node.service.closing()
    await node.server.close()
    with pytest.raises(Unavailable):
        await starting
    await node.service.close()
    assert [one.phase.value for one in await node.store.all()] == ["starting"]


async def test_instance_of_a_pod(node: Any) -> None:
    with pytest.raises(RpcError) as refused:
        await info(node, wait=False)
    assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(CaaError) as late:
        await info(node, wait=True, timeout=0.2)
    assert late.value.code is Code.DEADLINE_EXCEEDED
    with pytest.raises(RpcError, match="PodName"):
        await info(node, wait=True, pod="")
    waiting = asyncio.create_task(info(node, wait=True, timeout=20))
    await create(node)
    await start(node)
    assert await waiting == "i-podvm-web-aaaaaaaa"


async def test_a_recorded_stop_of_an_earlier_life_does_not_end_the_new_one(node: Any) -> None:
    await create(node)
    await start(node)
    file = node.record_stop(SANDBOX)
    await create(node)
    assert not await asyncio.to_thread(file.exists)
    await start(node)
    assert len(node.cloud.living) == 1


async def test_a_stop_removes_what_the_relay_recorded(node: Any) -> None:
    file = node.record_stop(SANDBOX)
    await stop(node)
    assert not await asyncio.to_thread(file.exists)
