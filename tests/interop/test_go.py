"""containerd's Go ttrpc against ours, both ways, with messages that Go generated from our own `.proto` files."""

import asyncio
import subprocess
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CaaError, Code, Unavailable
from caa.wire import frames
from caa.wire.client import Client, connect
from caa.wire.proto import agent, health, ttrpc
from caa.wire.server import Call, Server
from caa.wire.status import RpcError

pytestmark = [pytest.mark.needs("go"), pytest.mark.needs("protoc")]

AGENT = "grpc.AgentService"
SIZES = (0, 1, 1000, 4095, 4096, 65_536, 1 << 20, 3 << 20)


# a Go client, our server


async def played(programs: Path, socket: Path, case: str) -> str:
    client = await asyncio.create_subprocess_exec(
        str(programs / "client"),
        *("-socket", str(socket), "-case", case),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, complaint = await client.communicate()
    # A client that lives logs the late answer to a call it gave up; that is no complaint.
    return (complaint if client.returncode else said).decode()


@pytest.mark.timeout(900)  # the first one builds
async def test_go_calls_us(go_programs: Path, served: Path, case: str) -> None:
    assert await played(go_programs, served, case) == f"ok {case}\n"


async def test_go_is_told_of_our_end(go_programs: Path, folder: Path) -> None:
    """Our server closes while a call of Go's waits: the call fails at once as closed."""
    waits = asyncio.Event()

    async def wait(request: agent.WaitProcessRequest, call: Call) -> agent.WaitProcessResponse:
        waits.set()
        return await asyncio.get_running_loop().create_future()

    server = Server({AGENT: {"WaitProcess": wait}})
    await server.listen(str(folder / "ours"))
    client = asyncio.create_task(played(go_programs, folder / "ours", "ended"))
    await waits.wait()
    await server.close()
    assert await client == "ok ended\n"


async def test_go_finds_nobody_where_we_do_not_serve(go_programs: Path, folder: Path) -> None:
    assert "no such file" in await played(go_programs, folder / "absent", "check")


# a Go server, our client


@pytest.fixture
async def go_server(go_programs: Path, folder: Path) -> AsyncIterator[Any]:
    server = await asyncio.create_subprocess_exec(
        str(go_programs / "server"),
        *("-socket", str(folder / "go")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert (await server.stdout.readline()).startswith(b"ready ")
    yield server
    assert server.stdin is not None
    server.stdin.close()
    await server.wait()


@pytest.fixture
async def client(go_server: Any, folder: Path) -> AsyncIterator[Client]:
    client = await connect(str(folder / "go"))
    yield client
    await client.close()


async def write_and_read(client: Client, text: bytes) -> bool:
    written = await client.call(f"{AGENT}/WriteStdin", agent.WriteStreamRequest(data=text))
    read = await client.call(f"{AGENT}/ReadStdout", agent.ReadStreamRequest(len=len(text)))
    return bool(written.len == zlib.crc32(text) and read.data == text)


def text_of(size: int) -> bytes:
    return b"".join(b"%016x" % number for number in range(size // 16 + 1))[:size]


async def check(client: Client) -> int:
    answer = await client.call("grpc.Health/Check", health.CheckRequest())
    return int(answer.status)


@pytest.mark.parametrize("size", SIZES)
async def test_sizes_to_go(client: Client, size: int) -> None:
    assert await write_and_read(client, text_of(size))


async def test_32_in_flight_to_go(client: Client) -> None:
    async def caller(number: int) -> bool:
        done = [await write_and_read(client, text_of(SIZES[(number + turn) % 6])) for turn in range(20)]
        return all(done) and await write_and_read(client, text_of(1 << 20))

    assert all(await asyncio.gather(*(caller(number) for number in range(32))))


@pytest.mark.parametrize("code", [code for code in Code if code])
async def test_errors_of_go(client: Client, code: Code) -> None:
    with pytest.raises(RpcError) as failed:
        await client.call(f"{AGENT}/SignalProcess", agent.SignalProcessRequest(signal=code, container_id='"x" ✗'))
    assert (failed.value.code, failed.value.message) == (code, '"x" ✗')
    why, deny = failed.value.details
    assert health.CheckRequest.FromString(why.value).service == "why"
    assert deny.type_url == "type.googleapis.com/grpc.SetPolicyRequest"
    assert agent.SetPolicyRequest.FromString(deny.value).policy == "deny"


async def test_what_go_does_not_serve(client: Client) -> None:
    for service, method in ((AGENT, "AddSwap"), ("hypervisor.Hypervisor", "Version")):
        with pytest.raises(RpcError) as failed:
            await client.call(f"{service}/{method}", ttrpc.Empty())
        assert failed.value.code is Code.UNIMPLEMENTED


async def diagnosed(client: Client, kind: str, key: str = "", **options: Any) -> str:
    request = agent.GetDiagnosticDataRequest(log_type=kind, container_id=key)
    answer = await client.call(f"{AGENT}/GetDiagnosticData", request, **options)
    return str(answer.data)


async def test_metadata_to_go(client: Client) -> None:
    assert await diagnosed(client, "metadata", "k", metadata={"k": "v", "other": "x"}) == "v"


async def test_deadlines_to_go(client: Client) -> None:
    assert await diagnosed(client, "deadline") == "none"
    assert 3000 < int(await diagnosed(client, "deadline", timeout=5)) <= 5000
    with pytest.raises(CaaError) as failed:
        await client.call(f"{AGENT}/WaitProcess", agent.WaitProcessRequest(), timeout=0.2)
    assert failed.value.code is Code.DEADLINE_EXCEEDED
    assert await check(client) == health.HealthCheckResponse.SERVING


async def test_a_request_go_would_discard_is_not_sent(client: Client) -> None:
    with pytest.raises(RpcError) as failed:
        await client.call(f"{AGENT}/WriteStdin", agent.WriteStreamRequest(data=bytes(5 << 20)))
    assert failed.value.code is Code.RESOURCE_EXHAUSTED
    assert await check(client) == health.HealthCheckResponse.SERVING


async def test_we_die_in_mid_frame(client: Client, folder: Path) -> None:
    request = ttrpc.Request(service=AGENT, method="WriteStdin", payload=bytes(100_000)).SerializeToString()
    _, writer = await asyncio.open_unix_connection(str(folder / "go"))
    writer.write(frames.encode(1, frames.FrameType.REQUEST, body=request)[:50_000])
    await writer.drain()
    writer.transport.abort()
    assert await write_and_read(client, text_of(5000))


async def test_go_is_killed(client: Client, go_server: Any) -> None:
    waiting = asyncio.ensure_future(client.call(f"{AGENT}/WaitProcess", agent.WaitProcessRequest()))
    await check(client)
    go_server.kill()
    with pytest.raises(Unavailable, match="ttrpc: closed"):
        await waiting
