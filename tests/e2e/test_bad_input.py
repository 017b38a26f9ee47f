"""What hostile or broken callers send to the real daemons: the error they see, and nothing left behind."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caa.errors import CaaError, Code
from caa.testing.demo import world
from caa.testing.demo.daemons import settings
from caa.wire.proto import hypervisor
from caa.wire.proto.ttrpc import Request, Response

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip", "busybox")]
SERVICE = "hypervisor.Hypervisor"
MD5 = 'algorithm = "md5"\nversion = "0.1.0"\n[data]\n'
HUGE = f'algorithm = "sha256"\nversion = "0.1.0"\n[data]\nx = "{"y" * (2 << 20)}"\n'
INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"


def _create(
    sandbox: str = "a" * 64, netns: str = "/run/netns/client", **annotations: str
) -> hypervisor.CreateVMRequest:
    values = {"io.kubernetes.cri.sandbox-name": "pod", "io.kubernetes.cri.sandbox-namespace": "default", **annotations}
    return hypervisor.CreateVMRequest(id=sandbox, networkNamespacePath=netns, annotations=values)


async def _refused(node, method: str, request: object) -> CaaError:
    client = await node.client()
    try:
        with pytest.raises(CaaError) as caught:
            await client.call(f"{SERVICE}/{method}", request, timeout=20)
    finally:
        await client.close()
    return caught.value


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda: _create(sandbox=""), "needs a sandbox id"),
        (lambda: _create(sandbox="../../etc/x"), "is not valid"),
        (lambda: _create(sandbox="x" * 300), "300 characters"),
        (lambda: _create(netns=""), "network namespace"),
        (lambda: _create(netns="/run/netns/absent"), "/run/netns/absent"),
        (lambda: _create(netns="/etc/passwd"), "/etc/passwd"),
        (lambda: _create(**{INITDATA: "this is = not = toml"}), INITDATA),
        (lambda: _create(**{INITDATA: MD5}), "md5"),
        (lambda: _create(**{INITDATA: HUGE}), INITDATA),
        (lambda: _create(**{"io.katacontainers.config.hypervisor.default_vcpus": "many"}), "default_vcpus"),
    ],
)
async def test_create_refuses(node, request_of: Callable[[], hypervisor.CreateVMRequest], words: str):
    error = await _refused(node, "CreateVM", request_of())
    assert error.code == Code.INVALID_ARGUMENT
    assert words in str(error)


async def test_start_of_an_unknown_sandbox(node):
    error = await _refused(node, "StartVM", hypervisor.StartVMRequest(id="b" * 64))
    assert error.code == Code.NOT_FOUND
    assert "CreateVM comes first" in str(error)


async def test_stop_of_an_unknown_sandbox_is_success(node):
    client = await node.client()
    for _ in range(3):
        await client.call(f"{SERVICE}/StopVM", hypervisor.StopVMRequest(id="c" * 64), timeout=0.9)
    await client.close()
    assert not list((node.paths.state / "stops").iterdir())


def _raw(node, data: bytes, answers: int) -> list[tuple[int, Response]]:
    """Send bytes as they are; the answers that come, with their stream ids, until the connection ends."""
    got = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(node.paths.hypervisor))
        stream = sock.makefile("rb")
        sock.sendall(data)
        for _ in range(answers):
            size, ident, _, _ = struct.unpack(">IIBB", stream.read(10))
            got.append((ident, Response.FromString(stream.read(size))))
        if not answers:
            sock.shutdown(socket.SHUT_WR)
            assert stream.read() == b""
    return got


def _frame(stream: int, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">IIBB", len(body) if size is None else size, stream, 1, 0) + body


def _version(stream: int) -> bytes:
    request = hypervisor.VersionRequest(version="1").SerializeToString()
    return _frame(stream, Request(service=SERVICE, method="Version", payload=request).SerializeToString())


async def test_a_frame_of_five_mebibytes_is_answered_on_its_stream(node):
    data = _frame(1, b"\0" * (5 << 20)) + _version(3)
    answers = dict(await asyncio.to_thread(_raw, node, data, 2))
    assert answers[1].status.code == Code.RESOURCE_EXHAUSTED
    assert answers[3].status.code == Code.OK


@pytest.mark.parametrize("data", [struct.pack(">iIBB", -1, 1, 1, 0), _version(1)[:20], b"\xff" * 64])
async def test_a_torn_or_senseless_frame_ends_its_connection_only(node, data: bytes):
    await asyncio.to_thread(_raw, node, data, 0)
    answers = await asyncio.to_thread(_raw, node, _version(1), 1)
    assert answers[0][1].status.code == Code.OK


async def test_a_payload_that_is_no_message(node):
    body = Request(service=SERVICE, method="CreateVM", payload=b"\xff\xff\xff").SerializeToString()
    answers = await asyncio.to_thread(_raw, node, _frame(1, body), 1)
    assert answers[0][1].status.code == Code.INVALID_ARGUMENT


async def test_an_unprivileged_client_is_refused(node):
    """Even if the folder's and the socket's modes let it pass, which they do not."""
    node.paths.run.chmod(0o755)
    node.paths.hypervisor.chmod(0o666)
    assert await asyncio.to_thread(_as_nobody, node.paths.hypervisor, _version(1)) == 0


def _as_nobody(path: Path, data: bytes) -> int:
    """Bytes of the answer that a process of uid 1000 gets: 0 when it is refused, 255 when it could not even connect."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    size = 255
    try:
        os.setgid(1000)
        os.setuid(1000)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(path))
        size = 0
        sock.sendall(data)
        size = len(sock.recv(100))
    finally:
        os._exit(size)


async def test_a_second_relay_is_refused_and_the_first_serves_on(node):
    """With the same state directory it would take over."""
    other = settings(node.paths, "local") | {"CAA_STATE_DIR": str(node.paths.top / "elsewhere")}
    done = await asyncio.to_thread(_second_relay, other)
    assert done.returncode != 0
    assert "another relay already serves" in done.stderr
    assert "Traceback" not in done.stderr
    answers = await asyncio.to_thread(_raw, node, _version(1), 1)
    assert answers[0][1].status.code == Code.OK


async def test_a_pods_directory_that_cannot_be_written(node):
    """Root may write anywhere but on a read-only mount."""
    pods = node.paths.top / "read-only"
    pods.mkdir()
    world.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(pods))
    other = settings(node.paths, "local") | {
        "PODS_DIR": str(pods / "pods"),
        "CAA_RUN_DIR": str(node.paths.top / "other"),
        "REMOTE_HYPERVISOR_ENDPOINT": str(node.paths.top / "other" / "hypervisor.sock"),
    }
    try:
        done = await asyncio.to_thread(_second_relay, other)
    finally:
        world.run("umount", str(pods))
    assert done.returncode != 0
    assert str(pods / "pods") in done.stderr
    assert "Traceback" not in done.stderr


def _second_relay(environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "caa", "relay"]
    return subprocess.run(
        argv, env={**os.environ, **environ}, capture_output=True, text=True, timeout=30, check=False, cwd=Path("/")
    )
