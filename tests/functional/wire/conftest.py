"""A server of the hypervisor service on a real socket, whose handlers do what the request's text says."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from caa.errors import Code, NotFound
from caa.wire.client import Client, connect
from caa.wire.proto import hypervisor
from caa.wire.proto.ttrpc import Any
from caa.wire.server import Call, Handler, Server
from caa.wire.status import RpcError


class Hypervisor:
    """Handlers to order about: `release` lets the waiting ones go; what happened to them is counted."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.began = 0
        self.peak = 0
        self.at_work = 0
        self.cancelled = 0
        self.calls: list[Call] = []

    def handlers(self) -> dict[str, Handler]:
        return {"Version": self.version, "StartVM": self.start, "StopVM": self.stop}

    async def version(self, request: hypervisor.VersionRequest, call: Call) -> hypervisor.VersionResponse:
        self.calls.append(call)
        return hypervisor.VersionResponse(version=request.version)

    async def start(self, request: hypervisor.StartVMRequest, call: Call) -> hypervisor.StartVMResponse:
        """Waits until released."""
        self.calls.append(call)
        self.began += 1
        self.at_work += 1
        self.peak = max(self.peak, self.at_work)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if request.id == "stubborn":
                await self.release.wait()
            raise
        finally:
            self.at_work -= 1
        return hypervisor.StartVMResponse()

    async def stop(self, request: hypervisor.StopVMRequest, call: Call) -> object:
        """Fails in the way that the id names."""
        match request.id:
            case "notfound":
                raise NotFound("no such sandbox")
            case "details":
                raise RpcError(
                    Code.PERMISSION_DENIED, '"blocked"', details=[Any(type_url="a", value=b"1"), Any(type_url="b")]
                )
            case "bug":
                raise ZeroDivisionError("a bug of ours")
            case "wrong":
                return hypervisor.StartVMResponse()
            case "cancel":
                raise asyncio.CancelledError
        return hypervisor.StopVMResponse()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that other users may enter: unix socket paths end at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="wire") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def service() -> Hypervisor:
    return Hypervisor()


@pytest.fixture
async def server(folder: Path, service: Hypervisor) -> AsyncIterator[Server]:
    server = Server({"hypervisor.Hypervisor": service.handlers()}, max_in_flight=32)
    await server.listen(str(folder / "sock"))
    yield server
    service.release.set()
    await server.close()


@pytest.fixture
async def client(folder: Path, server: Server) -> AsyncIterator[Client]:
    client = await connect(str(folder / "sock"))
    yield client
    await client.close()
