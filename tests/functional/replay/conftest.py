"""Both hops as real processes, with the test's own hands at both ends: it plays the shim and the agent."""

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caa.relay import launch
from caa.wire.certs import NodeAuthority
from caa.wire.client import connect
from caa.wire.frames import HEADER
from caa.wire.proto import relay
from podvm import forwarder

SANDBOX = "replayed"
NAME = "podvm-replayed-12345678"
_PATIENCE = 20.0  # seconds


class Wire:
    """One blocking connection that speaks in whole frames, as bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(_PATIENCE)

    def send(self, frame: bytes) -> None:
        self.sock.sendall(frame)

    def receive(self) -> bytes:
        header = self._exactly(HEADER.size)
        return header + self._exactly(HEADER.unpack(header)[0])

    def ended(self) -> bool:
        """Whether the peer has closed, with nothing more to read."""
        return self.sock.recv(1) == b""

    def close(self) -> None:
        self.sock.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            assert more, f"the connection ended after {len(data)} of {size} bytes"
            data += more
        return bytes(data)


@dataclass
class Hops:
    """Relay and forwarder; `dial` makes a shim's connection, `agent` is the one that the forwarder made."""

    folder: Path
    agent: Wire
    processes: list[subprocess.Popen[bytes]]
    dialled: list[Wire] = field(default_factory=list)

    def dial(self) -> Wire:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / "pods" / SANDBOX / "agent.ttrpc"))
        self.dialled.append(Wire(sock))
        return self.dialled[-1]


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(_PATIENCE)
    return listener


def _forwarder(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """In a mount namespace with its own /run, for it makes the sources of bind mounts."""
    authority = NodeAuthority.load_or_create(folder / "state")
    identity = authority.server_identity(NAME)
    for name, text in (("ca", identity.client_ca), ("crt", identity.cert), ("key", identity.key)):
        (folder / f"server.{name}").write_text(text)
    argv = forwarder.command(
        f"-kata-agent-socket={folder / 'agent.sock'}",
        f"-listen=127.0.0.1:{port}",
        f"-ca-cert-file={folder / 'server.ca'}",
        f"-cert-file={folder / 'server.crt'}",
        f"-cert-key={folder / 'server.key'}",
    )
    script = 'mount -t tmpfs tmpfs /run && exec "$@"'
    return subprocess.Popen(["unshare", "--mount", "--", "sh", "-c", script, "forwarder", *argv])


def _relay(folder: Path) -> subprocess.Popen[bytes]:
    argv = launch.command(
        hypervisor_socket=str(folder / "hypervisor.sock"), pods_dir=str(folder / "pods"),
        run_dir=str(folder / "run"), state_dir=str(folder / "state"),
    )  # fmt: skip
    process = subprocess.Popen(argv)
    end = time.monotonic() + _PATIENCE
    while not (folder / "run" / "relay.sock").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return process


async def _open_link(folder: Path, port: int) -> None:
    files = NodeAuthority.load_or_create(folder / "state").client_files()
    request = relay.OpenRequest(
        sandbox_id=SANDBOX, addresses=["127.0.0.1"], port=port, server_name=NAME,
        ca_file=files.ca_file, cert_file=files.cert_file, key_file=files.key_file,
    )  # fmt: skip
    client = await connect(str(folder / "run" / "relay.sock"))
    await client.call("caa.relay.v1.AgentLinks/Open", request, timeout=_PATIENCE)
    await client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def hops() -> Iterator[Hops]:
    folder = Path(tempfile.mkdtemp(prefix="hops-"))
    port = free_port()
    listener = _listener(folder / "agent.sock")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_forwarder(folder, port))
        agent = Wire(listener.accept()[0])
        processes.append(_relay(folder))
        asyncio.run(_open_link(folder, port))
        made = Hops(folder, agent, processes)
        yield made
        for wire in (*made.dialled, agent):
            wire.close()
    finally:
        listener.close()
        for process in processes:
            process.terminate()
            process.wait(10)
        shutil.rmtree(folder)
