"""The registry credentials for the guest, auth.json, merged from image pull secrets. Pure."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from caa.errors import UserDataTooLarge

LIMIT = 12288  # bytes; beyond it the reference drops the file and the pull fails later in the guest (podvm.md 2.1)


@dataclass(frozen=True, slots=True)
class PullSecret:
    """The value of an image pull secret, `.dockerconfigjson` or (`legacy`) `.dockercfg`; `name` is for messages."""

    name: str
    data: bytes = field(repr=False)
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """`text` is auth.json, "" when there are no credentials. `skipped` says what was left out, and why."""

    text: str = field(repr=False)
    registries: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def too_large(self) -> bool:
        """Whether it is over the limit of the reference's guests."""
        return len(self.text.encode()) > LIMIT


def merge(secrets: Iterable[PullSecret]) -> RegistryAuth:
    """Merge secrets, the ServiceAccount's first, then the pod's own; for one registry the later wins.

    User name and password are folded into `auth`; entries without credentials are dropped. A secret that cannot be read
    does not stop the pod, whose image may need none: it is named in `skipped`, without its content.
    """
    auths: dict[str, dict[str, str]] = {}
    skipped: list[str] = []
    for secret in secrets:
        entries = _entries(secret)
        if isinstance(entries, str):
            skipped.append(f"{secret.name}: {entries}")
            continue
        for registry, entry in entries.items():
            credential = _credential(entry)
            if credential:
                auths[registry] = {"auth": credential}
            else:
                skipped.append(f"{secret.name}: no usable credentials for {registry!r}")
    text = json.dumps({"auths": auths}, separators=(",", ":")) if auths else ""
    return RegistryAuth(text, tuple(auths), tuple(skipped))


def require_fit(auth: RegistryAuth, limit: int = LIMIT) -> None:
    """Raise `UserDataTooLarge` when auth.json is over `limit` bytes; else the pull would fail later in the guest."""
    size = len(auth.text.encode())
    if size > limit:
        raise UserDataTooLarge(
            f"the registry credentials take {size} bytes for {len(auth.registries)} registries, allowed are {limit}: "
            "give the pod and its ServiceAccount fewer imagePullSecrets"
        )


def _entries(secret: PullSecret) -> Mapping[str, Any] | str:
    try:
        document = json.loads(secret.data)
    except (ValueError, RecursionError):
        return "not JSON"
    entries = document if secret.legacy or not isinstance(document, dict) else document.get("auths")
    return entries if isinstance(entries, dict) else "not a JSON object of registries"


def _credential(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    user, password, auth = entry.get("username"), entry.get("password"), entry.get("auth")
    if isinstance(auth, str) and auth:
        return auth if _is_user_and_password(auth) else ""
    if isinstance(user, str) and isinstance(password, str) and user:
        return base64.b64encode(f"{user}:{password}".encode(errors="replace")).decode()
    return ""


def _is_user_and_password(auth: str) -> bool:
    try:
        return b":" in base64.b64decode(auth, validate=True)
    except (binascii.Error, ValueError):
        return False
