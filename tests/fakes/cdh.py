"""A stand-in for the Confidential Data Hub's SecureMount: strict about the request, real LUKS2 headers, no mapping.

`python -m tests.fakes.cdh SOCKET KEYS.json` serves until it is ended. KEYS maps the URIs that a key broker would know
to keys. A blank disk is formatted and an encrypted one is tried with its key by the real cryptsetup; what would be the
mapped file system is a tmpfs, so that no device mapper is needed. Requests that it has served are printed, one a line.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from caa.errors import InvalidInput, NotFound
from caa.wire.proto import cdh
from caa.wire.server import Call, Server

REQUIRED = {"sourceType", "targetType", "encryptionType"}
KNOWN = REQUIRED | {"devicePath", "deviceId", "key", "filesystemType", "mkfsOpts", "dataIntegrity", "mapperName"}
FILE_SYSTEMS = {"ext4", "ext3", "xfs"}


class Hub:
    """The service; `keys` are what the key broker hands out after attestation."""

    def __init__(self, keys: dict[str, str]) -> None:
        self._keys = keys

    async def secure_mount(self, request: Any, _call: Call) -> Any:
        await asyncio.to_thread(self._mount, request, dict(request.options))
        return cdh.SecureMountResponse()

    def _mount(self, request: Any, options: dict[str, str]) -> None:
        self._refuse(request, options)
        device, key = options["devicePath"], self._keys.get(options["key"])
        if key is None:
            raise NotFound(f"get key failed: no resource {options['key']}")
        if options["sourceType"] == "empty":
            self._cryptsetup("luksFormat", "--type=luks2", "--batch-mode", "--pbkdf-force-iterations=1000",
                             "--pbkdf=pbkdf2", device, key=key)  # fmt: skip
        self._cryptsetup("open", "--test-passphrase", device, key=key)
        subprocess.run(["mount", "-t", "tmpfs", options["mapperName"], request.mount_point], check=True)
        print(json.dumps({"options": options, "mount_point": request.mount_point}), flush=True)  # noqa: T201

    def _refuse(self, request: Any, options: dict[str, str]) -> None:
        unknown, missing = options.keys() - KNOWN, REQUIRED - options.keys()
        if request.volume_type != "block-device" or unknown or missing or list(request.flags):
            raise InvalidInput(f"illegal parameters: unknown {unknown}, missing {missing}")
        if options["encryptionType"] != "luks2" or options["targetType"] != "fileSystem":
            raise InvalidInput("illegal mode")
        if options["sourceType"] not in ("empty", "encrypted") or options.get("filesystemType") not in FILE_SYSTEMS:
            raise InvalidInput("illegal source or file system")
        if not Path(options.get("devicePath", "")).is_block_device() or not Path(request.mount_point).is_dir():
            raise InvalidInput("no such device or mount point")
        if not options.get("key", "").startswith(("kbs://", "sealed.")):
            raise InvalidInput("no key: the storage would be lost with the VM")

    def _cryptsetup(self, *argv: str, key: str) -> None:
        done = subprocess.run(
            ["/usr/sbin/cryptsetup", "--key-file=-", *argv], input=key.encode(), capture_output=True, check=False
        )
        if done.returncode:
            raise InvalidInput(f"cryptsetup: {done.stderr.decode().strip()}")


async def serve(hub: Hub, path: str) -> None:
    server = Server({"api.SecureMountService": {"SecureMount": hub.secure_mount}})
    await server.listen(path)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Hub(json.loads(Path(sys.argv[2]).read_text())), sys.argv[1]))
