"""What the stand-in agent does beyond the recordings: containers for real, habits, nothing left behind."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from caa.testing.agent.service import NOT_SERVED
from caa.testing.shim import ContainerOptions, Kind, PodOptions, requests
from caa.testing.shim.kinds import habits
from caa.wire.proto import agent
from caa.wire.proto.descriptors import methods

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "/bin/busybox")]

Start = Callable[..., Any]
Dial = Callable[..., Awaitable[Any]]
OWN = habits(Kind.GO)
POD = PodOptions(name="habits")
SANDBOX = "a" * 64


def exists(path: str) -> bool:
    return Path(path).exists()


def cgroups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/caa-agent-test-{os.getpid()}"))


async def begin(client: Any) -> None:
    answer = await client.call("CreateSandbox", requests.create_sandbox(POD, SANDBOX))
    assert answer.code == 0


async def run(client: Any, name: str, *args: str, **more: Any) -> None:
    options = ContainerOptions(name=name, args=args, **more)
    request = requests.container(options, name, pod=POD, sandbox=SANDBOX, habits=OWN)
    assert (await client.call("CreateContainer", request)).code == 0
    assert (await client.call("StartContainer", agent.StartContainerRequest(container_id=name))).code == 0


def read(name: str, size: int = 32768, exec_id: str = "") -> agent.ReadStreamRequest:
    return agent.ReadStreamRequest(container_id=name, exec_id=exec_id, len=size)


def data(answer: Any) -> bytes:
    assert (answer.code, answer.text) == (0, "")
    return agent.ReadStreamResponse.FromString(answer.payload).data


async def test_create_sandbox_deletes_the_agents_own_socket(start_agent: Start, dial: Dial) -> None:
    running = start_agent(socket=None)
    client = await dial(running)
    await begin(client)
    assert not exists(running.socket)
    # The connection that was there before lives on, and it is the only one there will ever be.
    assert (await client.call("GetGuestDetails", agent.GuestDetailsRequest())).code == 0
    with pytest.raises(FileNotFoundError):
        await dial(running)


async def test_a_socket_elsewhere_survives_create_sandbox(start_agent: Start, dial: Dial) -> None:
    running = start_agent()
    await begin(await dial(running))
    assert (await (await dial(running)).call("GetMetrics", agent.GetMetricsRequest())).code == 0


async def test_every_method_is_served_or_unimplemented(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    unserved = set(NOT_SERVED.split())
    assert len(methods("grpc.AgentService")) == 42
    for name in unserved:
        answer = await client.call(name, methods("grpc.AgentService")[name].request())
        assert answer.code == 12, name
    # The others either work on an empty request or say what is wrong with it.
    waiting = {"GetOOMEvent", "DestroySandbox"}
    for name in methods("grpc.AgentService").keys() - unserved - waiting:
        answer = await client.call(name, methods("grpc.AgentService")[name].request())
        assert answer.code in (0, 3, 5, 13), name


async def test_length_of_a_read_is_honoured(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "printf", "abcdef")
    assert [data(await client.call("ReadStdout", read("c1", 4))) for _ in range(3)] == [b"abcd", b"ef", b""]


async def test_an_abandoned_read_swallows_the_next_chunk(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "cat")
    abandoned = client.start("ReadStdout", read("c1"))
    await client.call("WriteStdin", agent.WriteStreamRequest(container_id="c1", data=b"one"))
    assert data(await abandoned) == b"one"
    kept = client.start("ReadStdout", read("c1"))
    await client.call("WriteStdin", agent.WriteStreamRequest(container_id="c1", data=b"two"))
    assert data(await kept) == b"two"


async def test_a_dropped_connection_loses_no_output(start_agent: Start, dial: Dial) -> None:
    running = start_agent()
    client, other = await dial(running), await dial(running)
    await begin(client)
    await run(client, "c1", "cat")
    pending = other.start("ReadStdout", read("c1"))
    await other.call("GetMetrics", agent.GetMetricsRequest())
    await other.close()
    await client.call("GetMetrics", agent.GetMetricsRequest())
    await client.call("WriteStdin", agent.WriteStreamRequest(container_id="c1", data=b"kept"))
    assert data(await client.call("ReadStdout", read("c1"))) == b"kept"
    assert not pending.done()


async def test_terminal(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "sleep", "1000")
    shell = ContainerOptions(name="sh", args=("/bin/sh", "-c", "read x; stty size; tty; exit 5"), tty=True)
    request = requests.execute("c1", "e1", options=shell)
    assert (await client.call("ExecProcess", request)).code == 0
    resize = agent.TtyWinResizeRequest(container_id="c1", exec_id="e1", row=33, column=77)
    assert (await client.call("TtyWinResize", resize)).code == 0
    await client.call("WriteStdin", agent.WriteStreamRequest(container_id="c1", exec_id="e1", data=b"go\n"))
    seen = b""
    while b"/dev/pts/0" not in seen:
        seen += data(await client.call("ReadStdout", read("c1", exec_id="e1")))
    assert b"33 77" in seen
    end = await client.call("ReadStdout", read("c1", exec_id="e1"))
    while end.code == 0:
        end = await client.call("ReadStdout", read("c1", exec_id="e1"))
    assert end.text == "Input/output error (os error 5)"
    wait = agent.WaitProcessRequest(container_id="c1", exec_id="e1")
    answer = await client.call("WaitProcess", wait)
    assert agent.WaitProcessResponse.FromString(answer.payload).status == 5


async def test_pause_and_resume(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "sh", "-c", "while sleep 0.01; do echo tick; done")
    assert data(await client.call("ReadStdout", read("c1"))) == b"tick\n"
    assert (await client.call("PauseContainer", agent.PauseContainerRequest(container_id="c1"))).code == 0
    while (await client.call("ReadStdout", read("c1"), timeout=0.3)).code == 0:
        pass  # what was written before the pause
    assert (await client.call("ReadStdout", read("c1"), timeout=0.3)).code == 4
    assert (await client.call("ResumeContainer", agent.ResumeContainerRequest(container_id="c1"))).code == 0
    assert data(await client.call("ReadStdout", read("c1"))).startswith(b"tick\n")
    assert (await client.call("PauseContainer", agent.PauseContainerRequest(container_id="c1"))).code == 0
    # A frozen container can be removed.
    assert (await client.call("RemoveContainer", agent.RemoveContainerRequest(container_id="c1"))).code == 0


async def test_a_kill_for_memory_is_an_event(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    event = client.start("GetOOMEvent", agent.GetOOMEventRequest())
    await run(client, "c1", "sh", "-c", "x=x; while :; do x=$x$x; done", memory_limit=16 * 1024 * 1024)
    async with asyncio.timeout(20):
        assert agent.OOMEvent.FromString((await event).payload).container_id == "c1"
    answer = await client.call("WaitProcess", agent.WaitProcessRequest(container_id="c1"))
    assert agent.WaitProcessResponse.FromString(answer.payload).status == 137


async def test_stats_count_memory_and_processes(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "sh", "-c", "echo up; exec sleep 1000")
    assert data(await client.call("ReadStdout", read("c1"))) == b"up\n"
    answer = await client.call("StatsContainer", agent.StatsContainerRequest(container_id="c1"))
    stats = agent.StatsContainerResponse.FromString(answer.payload).cgroup_stats
    assert stats.memory_stats.usage.usage > 0
    assert stats.cpu_stats.cpu_usage.total_usage > 0
    assert stats.pids_stats.current == 1


async def test_a_file_in_chunks_is_seen_in_a_container(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    content = os.urandom(2_500_000)
    path = f"{requests.SHARED}/blob"
    for chunk in requests.copy_file(path, content, habits=OWN):
        assert (await client.call("CopyFile", chunk)).code == 0
    await run(client, "c1", "cat", "/blob", mounts={"/blob": path})
    seen = b""
    while chunk := data(await client.call("ReadStdout", read("c1"))):
        seen += chunk
    assert seen == content


async def test_copy_file_stays_in_its_folder(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    for path in ("/etc/passwd", "/run/kata-containers/../x", "relative"):
        request = agent.CopyFileRequest(path=path, file_mode=0o100644, data=b"x", file_size=1)
        assert (await client.call("CopyFile", request)).code == 13, path


@pytest.mark.parametrize("name", ["", "../up", "a/b", "x" * 300, ".."])
async def test_a_container_name_is_no_path(start_agent: Start, dial: Dial, name: str) -> None:
    client = await dial(start_agent())
    await begin(client)
    request = requests.container(ContainerOptions(name="n", args=("true",)), name, pod=POD, sandbox=SANDBOX, habits=OWN)
    answer = await client.call("CreateContainer", request)
    assert (answer.code, answer.text) == (13, "EINVAL: Invalid argument")


async def test_hostname_is_shared_by_all_containers(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    pause = requests.pause(POD, SANDBOX, habits=OWN, files={})
    assert (await client.call("CreateContainer", pause)).code == 0
    await run(client, "c1", "hostname")
    assert data(await client.call("ReadStdout", read("c1"))) == b"habits\n"


async def test_an_exec_that_fails_leaves_its_name_free(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent())
    await begin(client)
    await run(client, "c1", "sleep", "1000")
    missing = requests.execute("c1", "e1", options=ContainerOptions(name="e", args=("/bin/nosuch",)))
    answer = await client.call("ExecProcess", missing)
    assert (answer.code, answer.text) == (13, "the file /bin/nosuch was not found")
    real = requests.execute("c1", "e1", options=ContainerOptions(name="e", args=("true",)))
    assert (await client.call("ExecProcess", real)).code == 0


async def test_denied_by_flag(start_agent: Start, dial: Dial) -> None:
    client = await dial(start_agent("--deny", "CopyFileRequest"))
    answer = await client.call("CopyFile", agent.CopyFileRequest(path="/x"))
    assert (answer.code, answer.text) == (7, '"CopyFileRequest is blocked by policy: "')


@pytest.mark.parametrize("way", ["DestroySandbox", "SIGTERM"])
async def test_nothing_is_left_at_the_end(start_agent: Start, dial: Dial, way: str) -> None:
    running = start_agent()
    client = await dial(running)
    await begin(client)
    await run(client, "c1", "sleep", "1000")
    assert cgroups()
    if way == "SIGTERM":
        os.kill(running.pid, signal.SIGTERM)
    else:
        assert (await client.call("DestroySandbox", agent.DestroySandboxRequest())).code == 0
    await client.ended()
    assert running.child.wait(10) == 0
    assert not cgroups()
    assert not exists(running.socket)
