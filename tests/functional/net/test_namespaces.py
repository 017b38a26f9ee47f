"""Namespaces by path: what is refused, making and removing one."""

import os
import socket
import subprocess
import sys

import pytest

from caa.errors import InvalidInput
from caa.net import netns, spaces
from caa.net.netlink import Netlink

pytestmark = pytest.mark.root


def test_other_things_are_refused_and_named(tmp_path, box):
    pipe, plain, listener = tmp_path / "pipe", tmp_path / "plain", tmp_path / "socket"
    os.mkfifo(pipe)
    plain.write_text("no")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(listener))
    uts = f"/proc/{box.process.pid}/ns/uts"
    for path in (str(pipe), str(plain), str(listener), uts, str(tmp_path), str(tmp_path / "none"), "/dev/null", ""):
        with pytest.raises(InvalidInput) as caught:
            netns.open_netns(path)
        assert repr(path) in str(caught.value)
    with pytest.raises(InvalidInput, match="not a path"):
        netns.open_netns("a\0b")


def test_the_hosts_own_namespace_is_refused():
    with pytest.raises(InvalidInput, match="host's own"), spaces.opened("/proc/self/ns/net"):
        pass


def test_a_socket_belongs_to_its_namespace(box):
    box.ip("link add marker type bridge\n")
    with netns.opened(box.path) as descriptor, Netlink.open(descriptor) as inner, Netlink.open() as outer:
        assert inner.link("marker") is not None
        assert outer.link("marker") is None


_MAKE = """
import os, subprocess, sys
from caa.net import netns
from podvm import network
path = sys.argv[1]
before = os.stat("/proc/self/ns/net").st_ino
network.ensure_netns(path)
first = os.stat(path).st_ino
network.ensure_netns(path)
assert os.stat(path).st_ino == first != before
assert os.stat("/proc/self/ns/net").st_ino == before
with netns.opened(path) as descriptor:
    shown = netns.inside(descriptor, lambda: subprocess.run(["ip", "link"], capture_output=True, text=True).stdout)
assert "lo: <LOOPBACK,UP" in shown, shown
netns.remove_netns(path)
netns.remove_netns(path)
assert not os.path.exists(path)
open(path, "w").close()
network.ensure_netns(path)
netns.remove_netns(path)
print("made")
"""


def test_make_and_remove(tmp_path):
    """In a mount namespace of its own, as the mount table of the machine is not ours."""
    line = ["unshare", "-n", "-m", sys.executable, "-c", _MAKE, str(tmp_path / "netns" / "podns")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "made\n", done.stderr
