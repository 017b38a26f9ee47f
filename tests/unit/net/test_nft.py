"""The notrack rules as text, and a node without nft."""

import logging

from caa.net import nft


def test_the_ruleset_replaces_its_own_table_only():
    lines = nft.ruleset(4790).splitlines()
    assert lines[:3] == [
        "add table inet caa_notrack_4790",
        "delete table inet caa_notrack_4790",
        "table inet caa_notrack_4790 {",
    ]
    assert sum("udp dport 4790 notrack" in line for line in lines) == 2
    assert sum("priority raw" in line for line in lines) == 2


def test_no_nft_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(nft.shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert not nft.install(4789)
    assert "nft is not installed" in caplog.text
    caplog.clear()
    nft.remove(4789)
    assert caplog.text == ""
    assert not nft.installed(4789)
