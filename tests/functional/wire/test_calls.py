"""Our client and our server on a real socket: sizes, many at once, errors, deadlines, cancellation, loss."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from caa.errors import CaaError, Code, DeadlineExceeded, StateError, Unavailable
from caa.wire.client import Client, connect
from caa.wire.proto import hypervisor, ttrpc
from caa.wire.server import Server
from caa.wire.status import RpcError

HYPERVISOR = "hypervisor.Hypervisor"
Hypervisor = Any  # the fixture `service`: conftest's class of this name


async def version(client: Client, text: str, **options: Any) -> str:
    answer = await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(version=text), **options)
    return str(answer.version)


def start(client: Client, name: str = "", **options: Any) -> "asyncio.Task[Any]":
    return asyncio.ensure_future(client.call(f"{HYPERVISOR}/StartVM", hypervisor.StartVMRequest(id=name), **options))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for is another task's count
            await asyncio.sleep(0.005)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, 1 << 20, 3 << 20])
async def test_sizes(client: Client, size: int) -> None:
    text = "x" * size
    assert await version(client, text) == text


async def test_32_in_flight_at_3_mib(client: Client) -> None:
    texts = [f"{number:02}" + "x" * (3 << 20) for number in range(32)]
    assert await asyncio.gather(*(version(client, text) for text in texts)) == texts


async def test_answers_overtake_each_other(client: Client, service: Hypervisor) -> None:
    slow = start(client)
    assert await version(client, "fast") == "fast"
    assert not slow.done()
    service.release.set()
    assert await slow == hypervisor.StartVMResponse()


async def test_the_call_knows_its_circumstances(client: Client, service: Hypervisor) -> None:
    await version(client, "", timeout=5, metadata={"containerd-namespace-ttrpc": "k8s.io"})
    await version(client, "")
    bounded, unbounded = service.calls
    assert (bounded.service, bounded.method, bounded.peer.uid) == (HYPERVISOR, "Version", 0)
    assert bounded.peer.pid > 0
    assert bounded.metadata == {"containerd-namespace-ttrpc": "k8s.io"}
    remaining = bounded.remaining()
    assert remaining is not None
    assert 4 < remaining < 5
    assert (unbounded.deadline, unbounded.remaining(), unbounded.metadata) == (None, None, {})


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("notfound", Code.NOT_FOUND, "no such sandbox"),
        ("details", Code.PERMISSION_DENIED, '"blocked"'),
        ("bug", Code.INTERNAL, "ZeroDivisionError: a bug of ours"),
        (
            "wrong",
            Code.INTERNAL,
            "TypeError: a handler must return hypervisor.StopVMResponse, not StartVMResponse",
        ),
        ("cancel", Code.CANCELLED, "hypervisor.Hypervisor/StopVM was cancelled"),
    ],
)
async def test_errors_of_handlers(client: Client, name: str, code: Code, message: str) -> None:
    with capture_logs() as logs, pytest.raises(RpcError) as failed:
        await client.call(f"{HYPERVISOR}/StopVM", hypervisor.StopVMRequest(id=name))
    assert (failed.value.code, failed.value.message) == (code, message)
    assert len(logs) == (1 if code is Code.INTERNAL else 0)
    assert await version(client, "alive") == "alive"


async def test_details_pass_unchanged(client: Client) -> None:
    with pytest.raises(RpcError) as failed:
        await client.call(f"{HYPERVISOR}/StopVM", hypervisor.StopVMRequest(id="details"))
    assert failed.value.details == (ttrpc.Any(type_url="a", value=b"1"), ttrpc.Any(type_url="b"))


@pytest.mark.parametrize(
    ("service_name", "method"), [(HYPERVISOR, "CreateVM"), ("grpc.Health", "Check"), ("podvminfo.PodVMInfo", "GetInfo")]
)
async def test_what_is_not_served(client: Client, service_name: str, method: str) -> None:
    with pytest.raises(RpcError, match="not served here") as failed:
        await client.call(f"{service_name}/{method}", hypervisor.StopVMRequest())
    assert failed.value.code is Code.UNIMPLEMENTED


async def test_too_large_a_request_fails_here(client: Client) -> None:
    with pytest.raises(RpcError) as failed:
        await version(client, "x" * (4 << 20))
    assert failed.value.code is Code.RESOURCE_EXHAUSTED
    assert await version(client, "alive") == "alive"


# deadlines


async def test_our_own_deadline(client: Client, service: Hypervisor) -> None:
    began = time.monotonic()
    with pytest.raises(CaaError) as failed:
        await start(client, timeout=0.15)
    assert failed.value.code is Code.DEADLINE_EXCEEDED
    assert 0.14 < time.monotonic() - began < 1
    await until(lambda: service.cancelled == 1)
    assert await version(client, "alive") == "alive"


async def test_no_time_left(client: Client, service: Hypervisor) -> None:
    with pytest.raises(DeadlineExceeded, match="no time is left"):
        await start(client, timeout=0)
    assert await version(client, "alive") == "alive"
    assert service.began == 0


# cancellation and loss


async def test_a_cancelled_call_is_forgotten_and_its_late_answer_dropped(client: Client, service: Hypervisor) -> None:
    calls = [start(client) for _ in range(3)]
    await until(lambda: service.began == 3)
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    service.release.set()
    assert await calls[0] == await calls[2] == hypervisor.StartVMResponse()
    assert await version(client, "alive") == "alive"


async def test_handlers_end_with_their_connection(folder: Path, client: Client, service: Hypervisor) -> None:
    other = await connect(str(folder / "sock"))
    kept, lost = start(client), start(other)
    await until(lambda: service.began == 2)
    await other.close()
    with pytest.raises(Unavailable, match=r"ttrpc: closed \(closed by us\)"):
        await lost
    await until(lambda: service.cancelled == 1)
    service.release.set()
    assert await kept == hypervisor.StartVMResponse()


async def test_a_server_that_closes(client: Client, server: Server, service: Hypervisor, folder: Path) -> None:
    calls = [start(client) for _ in range(5)]
    await until(lambda: service.began == 5)
    await server.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(result) for result in results} == {"ttrpc: closed (the peer closed the connection)"}
    assert service.cancelled == 5
    assert not (folder / "sock").exists()
    await asyncio.wait_for(client.closed.wait(), 5)
    with pytest.raises(Unavailable, match="ttrpc: closed"):
        await version(client, "late")
    await server.close()
    await client.close()


async def test_a_caller_cancelled_while_the_server_closes(client: Client, server: Server, service: Hypervisor) -> None:
    call = start(client)
    await until(lambda: service.began == 1)
    closing = asyncio.ensure_future(server.close())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await closing


async def test_nobody_listens(folder: Path) -> None:
    with pytest.raises(Unavailable, match=r"nobody answers at .*/absent: No such file"):
        await connect(str(folder / "absent"))


# listening


async def test_the_socket_is_private_and_replaces_what_was_there(folder: Path, service: Hypervisor) -> None:
    path = folder / "sock"
    path.write_text("left over")
    first, second = (Server({HYPERVISOR: service.handlers()}) for _ in range(2))
    await first.listen(str(path))
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    await second.listen(str(path))
    await first.close()
    client = await connect(str(path))  # the path is the second one's now: the first left it alone
    assert await version(client, "x") == "x"
    await client.close()
    await second.close()
    assert names(folder) == []


@pytest.mark.parametrize("path", ["absent/sock", "x" * 200])
async def test_a_path_that_cannot_be(folder: Path, path: str) -> None:
    server = Server({})
    with pytest.raises(StateError, match="cannot listen on "):
        await server.listen(str(folder / path))
    assert names(folder) == []
    await server.close()


def test_a_handler_for_nothing() -> None:
    async def handler(request: Any, call: Any) -> None:
        """Never called."""

    with pytest.raises(KeyError):
        Server({HYPERVISOR: {"Fly": handler}})
