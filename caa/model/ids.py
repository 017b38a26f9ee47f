"""Identifiers: what makes one valid, and the names derived from them."""

import re
from typing import NewType

from caa.errors import InvalidInput

SandboxId = NewType("SandboxId", str)
InstanceId = NewType("InstanceId", str)

_SANDBOX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9-]")


def sandbox_id(text: str) -> SandboxId:
    """Check an id that came from a shim; containerd and CRI-O send 64 hex digits.

    It becomes a folder name and part of a cloud resource's name, so it may hold only letters, digits, `_`, `.` and
    `-`, starts with a letter or digit, and is at most 128 characters long. Raises `InvalidInput`.
    """
    if not text:
        raise InvalidInput("CreateVM needs a sandbox id, the request has none")
    if not _SANDBOX_ID.fullmatch(text):
        raise InvalidInput(
            f"sandbox id {text[:32]!r} ({len(text)} characters) is not valid: "
            "1 to 128 letters, digits, '_', '.' or '-', starting with a letter or digit"
        )
    return SandboxId(text)


def instance_name(pod: str, sandbox: SandboxId, *, limit: int = 63) -> str:
    """The pod VM's name, `podvm-<pod>-<first 8 of the sandbox id>`, at most `limit` characters.

    The form operators know (`reference/providers.md` 3): lower case, every other character `-`, the pod part cut.
    It is also the server name in the pod VM's certificate.
    """
    tail = _NOT_IN_A_NAME.sub("-", sandbox.lower()[:8]).rstrip("-")  # a host name may not end in one
    room = limit - len("podvm-") - len("-") - len(tail)
    return f"podvm-{_NOT_IN_A_NAME.sub('-', pod.lower())[: max(room, 0)]}-{tail}"
