"""PCR 8 of a TPM 2.0, which carries the initdata digest: two commands as bytes, and the device they go to.

TCG "TPM 2.0 Library" part 3: TPM2_PCR_Extend and TPM2_PCR_Read; part 2 for the numbers. Only the SHA-256 bank is used,
as the reference does it (`tpm2_pcrextend 8:sha256=...`): verifiers replay that one.
"""

import hashlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from caa.errors import StateError, Unavailable

DEVICE = Path("/dev/tpmrm0")  # the kernel's resource manager, which other users may have open as well
PCR = 8
SIZE = 32  # bytes of a SHA-256 digest

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_PCR_READ, _PCR_EXTEND = 0x17E, 0x182
_PASSWORD = 0x40000009  # TPM_RS_PW
_SHA256 = 0x000B
_BUSY = frozenset({0x922, 0x908, 0x90A})  # TPM_RC_RETRY, YIELDED, TESTING: send it again
_TRIES = 20
_ANSWER = 4096
_SOCKET_SECONDS = 10.0
_REASONS = MappingProxyType(
    {
        0x907: "(this locality may not extend the register)",
        0x120: "(the TPM is disabled)",
        0x100: "(the TPM has not been started)",
        0x101: "(the TPM is in failure mode)",
    }
)

Ask = Callable[[bytes], bytes]


def value(digest: str) -> bytes:
    """What is extended for a digest in hex: its first 32 bytes (`reference/podvm.md` 2.3)."""
    return bytes.fromhex(digest)[:SIZE]


def predicted(digest: str, before: bytes = bytes(SIZE)) -> bytes:
    """PCR 8 after the extend: SHA-256 of what it held and the value."""
    return hashlib.sha256(before + value(digest)).digest()


def extend_command(pcr: int, digest: bytes) -> bytes:
    """TPM2_PCR_Extend of the SHA-256 bank, with the register's empty password."""
    password = struct.pack(">IHBH", _PASSWORD, 0, 0, 0)
    digests = struct.pack(">IH", 1, _SHA256) + digest
    body = struct.pack(">II", pcr, len(password)) + password + digests
    return struct.pack(">HII", _SESSIONS, 10 + len(body), _PCR_EXTEND) + body


def read_command(pcr: int) -> bytes:
    """TPM2_PCR_Read of one register of the SHA-256 bank."""
    selection = struct.pack(">IHB", 1, _SHA256, 3) + (1 << pcr).to_bytes(3, "little")
    return struct.pack(">HII", _NO_SESSIONS, 10 + len(selection), _PCR_READ) + selection


def parse_read(answer: bytes) -> bytes:
    """The register's value. Raises `StateError` when the bank does not exist, or the answer is broken."""
    try:
        _update, selections = struct.unpack_from(">II", answer, 10)
        at = 18
        for _ in range(selections):
            at += 3 + answer[at + 2]
        (count,) = struct.unpack_from(">I", answer, at)
        if not count:
            raise StateError("the TPM has no SHA-256 bank of registers: enable it in the VM's TPM settings")
        (size,) = struct.unpack_from(">H", answer, at + 4)
        found = answer[at + 6 : at + 6 + size]
    except (struct.error, IndexError):
        raise StateError("the TPM's answer to a read of its registers is broken") from None
    if count != 1 or len(found) != SIZE:
        raise StateError("the TPM's answer to a read of its registers is broken")
    return found


def check(answer: bytes, what: str) -> int:
    """The response code: 0, or one that means "again". Raises `StateError` for every other one."""
    if len(answer) < 10 or struct.unpack_from(">I", answer, 2)[0] != len(answer):
        raise StateError(f"the TPM's answer to {what} is no TPM 2.0 response ({len(answer)} bytes)")
    (code,) = struct.unpack_from(">I", answer, 6)
    if code and code not in _BUSY:
        raise StateError(f"the TPM refuses to {what}: code 0x{code:03x} {_REASONS.get(code, '')}".rstrip())
    return int(code)


def send(ask: Ask, command: bytes, *, what: str) -> bytes:
    """Send a command until the TPM is no longer busy. Raises `StateError` or `Unavailable`."""
    for _ in range(_TRIES):
        answer = ask(command)
        if not check(answer, what):
            return answer
    raise Unavailable(f"the TPM stays busy, cannot {what}")


def read_pcr(ask: Ask, pcr: int = PCR) -> bytes:
    """A register of the SHA-256 bank, 32 bytes."""
    return parse_read(send(ask, read_command(pcr), what=f"read PCR {pcr}"))


def measure(ask: Ask, digest: str) -> bytes:
    """Extend PCR 8 by the initdata digest, once per boot, and read it back; returns what it holds then.

    A register that holds the value already is left alone, so that a second run of the service changes nothing.
    Raises `StateError` when anything else was measured into it: no verifier would find the value it expects.
    """
    wanted = predicted(digest)
    before = read_pcr(ask)
    if before == wanted:
        return wanted
    if any(before):
        raise StateError(f"PCR {PCR} holds {before.hex()} already: something else in this image extends it")
    send(ask, extend_command(PCR, value(digest)), what=f"extend PCR {PCR}")
    if (after := read_pcr(ask)) != wanted:
        raise StateError(f"PCR {PCR} is {after.hex()} after the extend, expected {wanted.hex()}")
    return wanted


@contextmanager
def opened(path: Path = DEVICE) -> Iterator[Ask]:
    """The TPM at a character device, or at the unix socket of a software TPM. Raises `StateError`."""
    try:
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(_SOCKET_SECONDS)
                sock.connect(str(path))
                yield lambda command: _over_socket(sock, command)
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"the TPM {path} cannot be used: {error.strerror}") from error
    try:
        yield lambda command: _over_device(descriptor, command)
    except OSError as error:
        raise StateError(f"the TPM {path} does not answer: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _over_device(descriptor: int, command: bytes) -> bytes:
    os.write(descriptor, command)
    return os.read(descriptor, _ANSWER)


def _over_socket(sock: socket.socket, command: bytes) -> bytes:
    sock.sendall(command)
    head = sock.recv(10, socket.MSG_WAITALL)
    if len(head) < 10:
        return head
    more = min(struct.unpack_from(">I", head, 2)[0], _ANSWER) - len(head)
    return head + (sock.recv(more, socket.MSG_WAITALL) if more > 0 else b"")
