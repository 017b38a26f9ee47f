"""The health endpoints on a real socket, and callers that do not behave."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from caa.errors import StateError
from caa.node.probe import Probe


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    made = Probe({"/startup": lambda: "still starting", "/healthz": lambda: ""})
    await made.listen(0)
    yield made
    await made.close()


async def said(probe: Probe, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", probe.port)
    writer.write(request)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_answers(probe: Probe) -> None:
    healthy = await said(probe, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert healthy.startswith(b"HTTP/1.1 200 OK\r\n")
    assert healthy.endswith(b"\r\n\r\nok\n")
    starting = await said(probe, b"GET /startup HTTP/1.1\r\n\r\n")
    assert starting.startswith(b"HTTP/1.1 503 ")
    assert starting.endswith(b"still starting\n")


@pytest.mark.parametrize("request_", [b"", b"GET /healthz", b"x" * 20_000, b"\x16\x03\x01\x00\xee"])
async def test_bad_callers_get_nothing_and_the_next_is_served(probe: Probe, request_: bytes) -> None:
    assert await said(probe, request_) == b""
    assert b"200 OK" in await said(probe, b"GET /healthz HTTP/1.1\r\n\r\n")


async def test_a_port_that_is_taken(probe: Probe) -> None:
    with pytest.raises(StateError, match="PROBE_PORT"):
        await Probe({}).listen(probe.port)
