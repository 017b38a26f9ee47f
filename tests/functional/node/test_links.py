"""The node's side of the relay's service: paths, requests, and a relay that goes and comes back."""

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from caa.errors import DeadlineExceeded, InvalidInput, Unavailable
from caa.model.ids import SandboxId
from caa.model.volume import Volume
from caa.node.links import LinkTls, RelayLinks
from caa.sandbox.ports import LinkRequest, LinkState

ONE = SandboxId("one")
LINK = LinkRequest(sandbox=ONE, addresses=(ip_address("192.0.2.7"), ip_address("2001:db8::7")), server_name="podvm-x")


def clear(node: Any, pods: Path = Path("/p"), dial_limit: float = 10.0) -> RelayLinks:
    tls = LinkTls(port=1234, certificates=None)
    return RelayLinks(node.folder / "relay.sock", pods, tls=tls, dial_limit=dial_limit)


async def test_open_list_close(node: Any) -> None:
    await node.links.open(LINK, None)
    await node.links.open(LINK, None)
    assert await node.links.list() == [LinkState(sandbox=ONE, connected=True, shims=2)]
    request = node.relay.links[ONE]
    assert list(request.addresses) == ["192.0.2.7", "2001:db8::7"]
    assert (request.tls_min_version, request.disable_tls) == ("VersionTLS12", False)
    await node.links.close(ONE)
    await node.links.close(ONE, "its pod VM is gone")
    assert node.relay.reasons == ["", "its pod VM is gone"]
    assert await node.links.list() == []


async def test_volumes(node: Any) -> None:
    """In their order; what the guest is told of each is JSON without the mount point."""
    one = Volume(source="/volumes/a/mount", disk="disk-a", fs_type="xfs")
    two = Volume(source="/volumes/b/mount", disk="disk-b", fs_group=5)
    await node.links.open(replace(LINK, volumes=(one, two)), None)
    assert [(told.source, json.loads(told.fields)) for told in node.relay.links[ONE].volumes] == [
        ("/volumes/a/mount", {"fs_type": "xfs", "lun": "0", "disk_id": "disk-a"}),
        ("/volumes/b/mount", {"fs_type": "ext4", "lun": "1", "disk_id": "disk-b", "fs_group": "5"}),
    ]


async def test_in_clear(node: Any) -> None:
    links = clear(node)
    await links.open(LINK, None)
    request = node.relay.links[ONE]
    assert (request.disable_tls, request.port, request.ca_file, request.key_file) == (True, 1234, "", "")
    await links.disconnect()


async def test_a_relay_that_comes_back_is_found(node: Any) -> None:
    await node.links.list()
    await node.relay_server.close()
    with pytest.raises(Unavailable):
        await node.links.close(ONE)
    opening = asyncio.create_task(node.links.open(LINK, None))
    await asyncio.sleep(0.3)
    assert not opening.done()
    again = node.relay.server()
    await again.listen(str(node.folder / "relay.sock"))
    await opening
    assert ONE in node.relay.links
    await node.links.disconnect()
    await again.close()


async def test_a_relay_that_stays_away_ends_with_the_deadline(node: Any) -> None:
    await node.relay_server.close()
    with pytest.raises(DeadlineExceeded, match="relay"):
        await node.links.open(LINK, asyncio.get_running_loop().time() + 0.3)
    with pytest.raises(DeadlineExceeded, match="relay"):
        await clear(node, dial_limit=0.3).open(LINK, None)


@pytest.mark.parametrize("pods", ["/a:b", "/" + "x" * 100])
async def test_paths_that_no_shim_could_dial(node: Any, pods: str) -> None:
    with pytest.raises(InvalidInput, match="PODS_DIR"):
        clear(node, Path(pods)).socket_path(ONE)
