"""What the node asks of the relay: agent links, over the relay's own small ttrpc service."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import Message

from caa.errors import DeadlineExceeded, InvalidInput, Unavailable
from caa.model.ids import SandboxId
from caa.sandbox.ports import LinkRequest, LinkState
from caa.userdata import volumes
from caa.wire.certs import Certificates
from caa.wire.client import Client, connect
from caa.wire.proto import relay

log = structlog.get_logger(__name__)

SERVICE = "caa.relay.v1.AgentLinks"
SOCKET = "agent.ttrpc"
_LONGEST_PATH = 107  # bytes of sun_path, unix(7), without its end
_PAUSE = 0.2  # seconds between two tries while the relay is away
_SHORT_CALL = 10.0  # seconds for Close and List, which do not leave the node


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTls:
    """How the relay dials: the forwarder's port, and TLS with these certificates; None means in clear."""

    port: int
    certificates: Certificates | None
    min_version: str = ""
    cipher_suites: tuple[str, ...] = ()
    skip_verify: bool = False


class RelayLinks:
    """`AgentLinks` over `<run dir>/relay.sock`; a lost connection is made anew at the next call."""

    def __init__(self, socket: Path, pods_dir: Path, *, tls: LinkTls, dial_limit: float) -> None:
        self._socket = socket
        self._pods_dir = pods_dir
        self._tls = tls
        self._dial_limit = dial_limit
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    def socket_path(self, sandbox: SandboxId) -> str:
        """Where the shim will find the agent. Raises `InvalidInput` when no socket can be made there."""
        path = str(self._pods_dir / sandbox / SOCKET)
        if ":" in path:
            raise InvalidInput(f"the agent socket {path} must not hold ':', Kata takes it as part of a URL: PODS_DIR")
        if len(path.encode()) > _LONGEST_PATH:
            raise InvalidInput(
                f"the agent socket {path[:64]}... would have {len(path.encode())} bytes, a unix socket's path has at "
                f"most {_LONGEST_PATH}: use a shorter PODS_DIR or a shorter sandbox id"
            )
        return path

    async def open(self, link: LinkRequest, deadline: float | None) -> None:
        """Have the relay dial until TLS is up, for PROXY_TIMEOUT at most. A relay that is away is waited for."""
        loop = asyncio.get_running_loop()
        bound = loop.time() + self._dial_limit
        bound = bound if deadline is None else min(bound, deadline)
        request = self._open_request(link)
        while True:
            try:
                await self._call("Open", request, timeout=bound - loop.time())
                return
            except Unavailable as error:
                if loop.time() + _PAUSE >= bound:
                    raise DeadlineExceeded(f"the relay did not answer in time: {error}") from error
                log.warning("the relay is away, trying again", error=str(error))
                await asyncio.sleep(_PAUSE)

    async def close(self, sandbox: SandboxId, why: str = "") -> None:
        await self._call("Close", relay.CloseRequest(sandbox_id=sandbox, reason=why), timeout=_SHORT_CALL)

    async def list(self) -> Sequence[LinkState]:
        response = await self._call("List", relay.ListRequest(), timeout=_SHORT_CALL)
        return [
            LinkState(
                sandbox=SandboxId(one.sandbox_id),
                connected=one.connected,
                shims=one.shims,
                ca=self._generation_of(one.ca_file),
            )
            for one in response.links
        ]

    def _generation_of(self, ca_file: str) -> str:
        certificates = self._tls.certificates
        return "" if certificates is None else certificates.generation_of(ca_file)

    async def disconnect(self) -> None:
        """Hang up on the relay; its links stay."""
        if self._client is not None:
            await self._client.close()

    def _open_request(self, link: LinkRequest) -> relay.OpenRequest:
        tls = self._tls
        addresses = [str(address) for address in link.addresses]
        request = relay.OpenRequest(sandbox_id=link.sandbox, addresses=addresses, port=tls.port)
        for volume, about in zip(link.volumes, volumes.fields(link.volumes), strict=True):
            request.volumes.add(source=volume.source, fields=about)
        if tls.certificates is None:
            request.disable_tls = True
            return request
        files = tls.certificates.client_files(link.ca)
        request.server_name = tls.certificates.server_name(link.server_name)
        request.ca_file, request.cert_file, request.key_file = files.ca_file, files.cert_file, files.key_file
        request.tls_min_version = tls.min_version
        request.cipher_suites = ",".join(tls.cipher_suites)
        request.skip_verify = tls.skip_verify
        return request

    async def _call(self, method: str, request: Message, *, timeout: float) -> Any:
        client = await self._connected()
        return await client.call(f"{SERVICE}/{method}", request, timeout=timeout)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None or self._client.closed.is_set():
                self._client = await connect(str(self._socket))
            return self._client
