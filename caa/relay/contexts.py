"""The TLS contexts of all links, one for each set of files."""

from __future__ import annotations

from caa.datapath.frames import UNAVAILABLE, Refused
from caa.datapath.tls import TlsError, client_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from caa.datapath.tls import TlsFiles
    from caa.relay.dial import Target


class Contexts:
    """`protocol` is offered by ALPN; empty for none."""

    __slots__ = ("_contexts", "_protocol")

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._contexts: dict[tuple[object, ...], tuple[tuple[object, ...], TlsFiles, Any]] = {}

    def of(self, target: Target) -> Any:
        """One TLS context for all links with the same files; read again when a file has changed. Raises `Refused`.

        Their targets name the files by the same object from then on.
        """
        if target.disable_tls:
            return None
        files = target.files
        key = (files.ca, files.cert, files.key, files.min_version, tuple(files.ciphers), target.skip_verify)
        stamp = files.key_of()
        known = self._contexts.get(key)
        if known is not None and known[0] == stamp:
            target.files = known[1]
            return known[2]
        try:
            context = client_context(files, skip_verify=target.skip_verify, protocol=self._protocol)
        except TlsError as error:
            raise Refused(UNAVAILABLE, f"TLS towards {target.server_name}: {error}") from error
        self._contexts[key] = (stamp, files, context)
        return context
