"""The one call that the guest's programs make to the Confidential Data Hub: `SecureMount`, over ttrpc on a unix socket.

Messages as in CDH's api.proto: SecureMountRequest {1 volume_type, 2 options map, 3 flags, 4 mount_point}; the options
of the plugin `block-device` are in the hub's own documentation.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from caa.datapath import edits, frames
from caa.errors import DeadlineExceeded, InvalidInput, Unavailable

SOCKET = Path("/run/confidential-containers/cdh.sock")
_SERVICE, _METHOD = "api.SecureMountService", "SecureMount"
_PLUGIN = "block-device"
_ANSWER = 1 << 20


def secure_mount(options: Mapping[str, str], mount_point: str, *, path: Path = SOCKET, seconds: float) -> None:
    """Let the hub open (or make) an encrypted volume and mount it.

    Raises `Unavailable` when there is no hub, `DeadlineExceeded`, and `InvalidInput` with the hub's reason when it
    refuses. The key never comes here: the hub fetches it after attestation.
    """
    request = frames.call(
        _SERVICE, _METHOD, stream=1, payload=_request(options, mount_point), timeout=int(seconds * 1e9)
    )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect(os.fspath(path))
            sock.sendall(request)
            answer = _frame(sock)
    except TimeoutError:
        raise DeadlineExceeded(f"the Confidential Data Hub did not mount {mount_point} within {seconds:g} s") from None
    except OSError as error:
        raise Unavailable(f"the Confidential Data Hub at {path} is not there: {error.strerror or error}") from error
    _check(answer, mount_point)


def _request(options: Mapping[str, str], mount_point: str) -> bytes:
    entries = (
        edits.bytes_field(1, key.encode()) + edits.bytes_field(2, value.encode()) for key, value in options.items()
    )
    fields = [edits.bytes_field(1, _PLUGIN.encode()), *(edits.bytes_field(2, entry) for entry in entries)]
    return b"".join((*fields, edits.bytes_field(4, mount_point.encode())))


def _frame(sock: socket.socket) -> bytes:
    """The payload of the answer."""
    head = _exactly(sock, frames.HEADER_SIZE)
    size, stream, kind, _ = frames.HEADER.unpack(head)
    if kind != frames.RESPONSE or stream != 1 or size > _ANSWER:
        raise OSError("it does not speak ttrpc")
    return _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise OSError("it closed the connection")
        found += piece
    return bytes(found)


def _check(answer: bytes, mount_point: str) -> None:
    try:
        status = edits.last_bytes(answer, 1)
        code, text = edits.last_varint(status, 1), edits.last_bytes(status, 2).decode("utf-8", "replace")
    except edits.EditError:
        raise Unavailable("the Confidential Data Hub's answer is not a protobuf message") from None
    if code:
        raise InvalidInput(f"the Confidential Data Hub does not mount {mount_point}: {text[:500]} (code {code})")
