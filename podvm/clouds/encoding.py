"""User data as a cloud hands it out: plain or base64. Pure."""

import base64
import binascii

from caa.errors import InvalidInput


def plain(body: bytes, source: str) -> bytes:
    """The document. Base64 has no `#`, so a text that begins with `#cloud-config` is taken as it is.

    Raises `InvalidInput` for anything else, without showing any of it.
    """
    text = body.strip()
    if not text:
        raise InvalidInput(f"{source}: the user data is empty; the pod VM was made without any")
    if text.startswith(b"#"):
        return body
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{source}: the user data is neither a #cloud-config document nor base64") from None
