"""Peers that misbehave: raw bytes at the server, raw bytes at the client, the wrong user, back-pressure."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from caa.errors import Code, Unavailable
from caa.wire import frames
from caa.wire.client import Client, connect
from caa.wire.frames import FrameType
from caa.wire.proto import hypervisor
from caa.wire.proto.ttrpc import Request, Response
from caa.wire.server import Server

HYPERVISOR = "hypervisor.Hypervisor"
Hypervisor = Any  # the fixture `service`: conftest's class of this name


class Raw:
    """A peer that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, Response]:
        async with asyncio.timeout(10):
            length, stream, kind, _ = frames.HEADER.unpack(await self.reader.readexactly(10))
            assert kind == FrameType.RESPONSE
            return stream, Response.FromString(await self.reader.readexactly(length))

    async def over(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


def request(stream: int, method: str, payload: bytes = b"", **fields: Any) -> bytes:
    body = Request(service=HYPERVISOR, method=method, payload=payload, **fields).SerializeToString()
    return frames.encode(stream, FrameType.REQUEST, body=body)


def version(stream: int, text: str) -> bytes:
    return request(stream, "Version", hypervisor.VersionRequest(version=text).SerializeToString())


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for is another task's count
            await asyncio.sleep(0.005)


@pytest.fixture
async def raw(folder: Path, server: Server) -> AsyncIterator[Raw]:
    peer = Raw(*await asyncio.open_unix_connection(str(folder / "sock")))
    yield peer
    peer.writer.close()


async def test_one_byte_at_a_time(raw: Raw) -> None:
    for byte in version(1, "slow"):
        raw.writer.write(bytes([byte]))
        await raw.writer.drain()
    stream, response = await raw.answer()
    assert (stream, response.payload) == (1, b"\x0a\x04slow")
    assert response.HasField("status")


async def test_five_mib_then_life_goes_on(raw: Raw) -> None:
    size = 5 << 20
    raw.writer.write(frames.HEADER.pack(size, 1, FrameType.REQUEST, 0))
    stream, response = await raw.answer()  # before the body came: nothing waits for it
    assert (stream, response.status.code) == (1, Code.RESOURCE_EXHAUSTED)
    raw.writer.write(bytes(size) + version(3, "x"))
    assert (await raw.answer())[0] == 3


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (version(2, "even"), Code.INVALID_ARGUMENT),
        (frames.encode(1, FrameType.REQUEST, body=b"\xff\xff\xff\xff"), Code.INVALID_ARGUMENT),
        (request(1, "Version", b"\xff\xff\xff\xff"), Code.INVALID_ARGUMENT),
        (request(1, "Nothing"), Code.UNIMPLEMENTED),
        (request(1, "Version", timeout_nano=-1), Code.DEADLINE_EXCEEDED),
        (request(1, "StartVM", timeout_nano=1), Code.DEADLINE_EXCEEDED),
    ],
)
async def test_bad_requests_are_answered_and_the_connection_lives(raw: Raw, bad: bytes, code: Code) -> None:
    raw.writer.write(bad + version(3, "x"))
    answers = dict([await raw.answer(), await raw.answer()])
    assert answers.pop(3).payload == b"\x0a\x01x"
    [response] = answers.values()
    assert response.status.code == code
    assert response.status.message


@pytest.mark.parametrize(
    "bad",
    [
        frames.HEADER.pack(2**31, 1, FrameType.REQUEST, 0),
        frames.HEADER.pack(0, 1, 9, 0),
        b"GET / HTTP/1.1\r\n\r\n",
        frames.encode(1, FrameType.RESPONSE, body=b""),
    ],
)
async def test_a_malformed_frame_ends_this_connection_only(raw: Raw, bad: bytes, client: Client) -> None:
    with capture_logs() as logs:
        raw.writer.write(version(1, "good") + bad + version(3, "never"))
        assert await raw.over()
    assert [entry["event"] for entry in logs] == ["connection broken by its peer"]
    answer = await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(version="alive"))
    assert answer.version == "alive"


async def test_a_client_that_dies_in_mid_frame(raw: Raw, client: Client, service: Hypervisor) -> None:
    raw.writer.write(request(1, "StartVM") + version(3, "x" * 100_000)[:50_000])
    await until(lambda: service.began == 1)
    raw.writer.transport.abort()
    await until(lambda: service.cancelled == 1)
    answer = await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(version="alive"))
    assert answer.version == "alive"


async def test_the_answer_at_the_deadline_even_of_a_stubborn_handler(raw: Raw, service: Hypervisor) -> None:
    stubborn = hypervisor.StartVMRequest(id="stubborn").SerializeToString()
    raw.writer.write(request(1, "StartVM", stubborn, timeout_nano=100_000_000))
    stream, response = await raw.answer()
    assert (stream, response.status.code) == (1, Code.DEADLINE_EXCEEDED)
    assert (service.cancelled, service.at_work) == (1, 1)
    service.release.set()
    raw.writer.write(version(1, "again"))
    assert (await raw.answer())[1].payload == b"\x0a\x05again"  # the only answer of the second call on stream 1
    raw.writer.write(version(3, "x"))
    assert (await raw.answer())[0] == 3


async def test_a_call_that_waits_for_its_turn_has_a_deadline_too(raw: Raw, service: Hypervisor) -> None:
    raw.writer.write(b"".join(request(1 + 2 * number, "StartVM") for number in range(32)))
    raw.writer.write(request(101, "StartVM", timeout_nano=100_000_000))
    stream, response = await raw.answer()
    assert (stream, response.status.code, service.began) == (101, Code.DEADLINE_EXCEEDED, 32)


# back-pressure


async def test_calls_beyond_the_bound_wait_unread(raw: Raw, service: Hypervisor) -> None:
    raw.writer.write(b"".join(request(1 + 2 * number, "StartVM") for number in range(100)))
    await until(lambda: service.began == 32)
    sent = 0
    while sent < 100:  # the kernel's buffer fills and the rest stays with us: nobody reads
        raw.writer.write(version(1001 + 2 * sent, "x" * 100_000))
        sent += 1
    await asyncio.sleep(0.1)
    assert raw.writer.transport.get_write_buffer_size() > 5_000_000
    assert (service.began, service.peak) == (32, 32)
    service.release.set()
    streams = [(await raw.answer())[0] for _ in range(200)]
    assert sorted(streams) == [1 + 2 * number for number in range(100)] + [1001 + 2 * number for number in range(100)]
    assert service.peak <= 32


async def test_a_peer_that_dies_while_it_is_not_read(raw: Raw, service: Hypervisor) -> None:
    raw.writer.write(b"".join(request(1 + 2 * number, "StartVM") for number in range(40)))
    await until(lambda: service.began == 32)
    raw.writer.transport.abort()
    await until(lambda: service.cancelled == 32)
    assert service.began == 32


async def test_a_peer_that_reads_nothing_is_not_served_on(raw: Raw, service: Hypervisor, client: Client) -> None:
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(200):
        raw.writer.write(version(1 + 2 * number, "x" * 100_000))
    await asyncio.sleep(0.3)
    served = len(service.calls)
    assert served < 60  # what fits into two kernel buffers and the one above
    answer = await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest(version="others"))
    assert answer.version == "others"
    raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert sorted([(await raw.answer())[0] for _ in range(200)]) == [1 + 2 * number for number in range(200)]


# the wrong user


@pytest.mark.root
async def test_another_user_is_refused(folder: Path, server: Server, service: Hypervisor) -> None:
    (folder / "sock").chmod(0o666)  # so that the kernel lets it through to our own check
    program = (
        "import os, socket, sys\n"
        "os.setgid(1000); os.setuid(1000)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n"
        "    s.sendall(bytes.fromhex(sys.argv[2])); got = s.recv(100)\n"
        "except ConnectionError: got = b''\n"
        "sys.exit(9 if got == b'' else 1)\n"
    )
    with capture_logs() as logs:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            program,
            str(folder / "sock"),
            version(1, "x").hex(),
            stderr=subprocess.PIPE,
        )
        _, stderr = await child.communicate()
    assert (child.returncode, stderr) == (9, b"")
    assert [(entry["event"], entry["uid"]) for entry in logs] == [("connection refused", 1000)]
    assert service.calls == []


# a bad server


async def test_a_server_that_speaks_something_else(folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(folder / "http")):
        client = await connect(str(folder / "http"))
        with capture_logs(), pytest.raises(Unavailable, match="unknown type"):
            await client.call(f"{HYPERVISOR}/Version", hypervisor.VersionRequest())
        assert client.closed.is_set()
