"""Builds the Go programs once a session, and serves with our own server what `go/script/script.go` says."""

import asyncio
import os
import subprocess
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from caa.errors import Code
from caa.wire.proto import agent, health, ttrpc
from caa.wire.server import Call, Handler, Server
from caa.wire.status import RpcError

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parents[1] / "caa" / "wire" / "proto" / "src"
MESSAGES = ("agent", "csi", "health", "network_types", "oci")
MODULE = "peerpods.test/interop"
CASES = ("check", "sizes", "flight", "errors", "unimplemented", "metadata", "deadline", "midframe", "pair")


@pytest.fixture(scope="session")
def go_programs() -> Path:
    """The folder that holds `client`, `server` and `certs`, built from our `.proto` and the published ttrpc."""
    build = FOLDER / "build"
    _go("build", "-o", f"{build}/", "google.golang.org/protobuf/cmd/protoc-gen-go")
    names = [f"caa/wire/proto/{name}.proto" for name in MESSAGES]
    options = [f"--go_opt=M{name}={MODULE}/kata" for name in names]
    subprocess.run(
        [
            "protoc",
            f"--proto_path=caa/wire/proto={SOURCES}",
            f"--proto_path={SOURCES}",
            f"--plugin=protoc-gen-go={build}/protoc-gen-go",
            f"--go_out={FOLDER}/go",
            f"--go_opt=module={MODULE}",
            "--go_opt=Mgoogle/protobuf/empty.proto=google.golang.org/protobuf/types/known/emptypb",
            *options,
            *names,
        ],
        check=True,
    )
    _go("build", "-o", f"{build}/", "./client", "./server", "./certs")
    return build


def _go(*words: str) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    subprocess.run(["go", *words], cwd=FOLDER / "go", env=environment, check=True, timeout=900)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Each of the Go client's cases that hold whatever is on the way."""
    return str(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: unix socket paths end at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="interop") as path:
        yield Path(path)


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Path]:
    """The socket of our server."""
    server = Server({"grpc.AgentService": AGENT, "grpc.Health": {"Check": _check}})
    await server.listen(str(folder / "ours"))
    yield folder / "ours"
    await server.close()


def pattern(size: int) -> bytes:
    """As `Pattern` of script.go."""
    return b"".join(b"%016x" % number for number in range(size // 16 + 1))[:size]


async def _check(request: health.CheckRequest, call: Call) -> health.HealthCheckResponse:
    return health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING)


async def _write_stdin(request: agent.WriteStreamRequest, call: Call) -> agent.WriteStreamResponse:
    return agent.WriteStreamResponse(len=zlib.crc32(request.data))


async def _read_stdout(request: agent.ReadStreamRequest, call: Call) -> agent.ReadStreamResponse:
    return agent.ReadStreamResponse(data=pattern(request.len))


async def _diagnose(request: agent.GetDiagnosticDataRequest, call: Call) -> agent.GetDiagnosticDataResponse:
    if request.log_type == "metadata":
        return agent.GetDiagnosticDataResponse(data=call.metadata.get(request.container_id, ""))
    left = call.remaining()
    return agent.GetDiagnosticDataResponse(data="none" if left is None else str(int(left * 1000)))


async def _fail(request: agent.SignalProcessRequest, call: Call) -> ttrpc.Empty:
    details = [ttrpc.Any(), ttrpc.Any()]
    details[0].Pack(health.CheckRequest(service="why"))
    details[1].Pack(agent.SetPolicyRequest(policy="deny"))
    raise RpcError(Code(request.signal), request.container_id, details=details)


async def _wait(request: agent.WaitProcessRequest, call: Call) -> agent.WaitProcessResponse:
    await asyncio.get_running_loop().create_future()
    return agent.WaitProcessResponse()


AGENT: dict[str, Handler] = {
    "WriteStdin": _write_stdin,
    "ReadStdout": _read_stdout,
    "GetDiagnosticData": _diagnose,
    "SignalProcess": _fail,
    "WaitProcess": _wait,
}
