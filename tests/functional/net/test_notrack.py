"""The notrack rules on a real nftables."""

import pytest

from caa.net import nft
from caa.net.worker import VxlanNetworking

pytestmark = pytest.mark.root


def test_rules_stand_once_and_go(box):
    def play() -> tuple[bool, ...]:
        return nft.installed(4789), nft.install(4789), nft.install(4789), nft.installed(4789)

    assert box.inside(play) == (False, True, True, True)
    shown = box.run("nft", "list", "ruleset")
    assert shown.count("udp dport 4789 notrack") == 2
    assert shown.count("priority raw") == 2
    for _ in range(2):
        box.inside(lambda: nft.remove(4789))
        assert box.run("nft", "list", "ruleset") == ""


def test_networking_installs_and_removes(box):
    seen = []

    async def act():
        networking = VxlanNetworking(vxlan_port=4790)
        await networking.start()
        seen.append(box.run("nft", "list", "ruleset"))
        await networking.close()
        await networking.close()
        seen.append(box.run("nft", "list", "ruleset"))

    box.run_async(act)
    assert "udp dport 4790 notrack" in seen[0]
    assert seen[1] == ""
