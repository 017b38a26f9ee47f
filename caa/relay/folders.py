"""The folders of the relay: each pod's own with its socket, and who may look into those that were there before."""

from __future__ import annotations

import posix

from caa.datapath.loop import say

SOCKET = "agent.ttrpc"
# What relay and node put into their directories; a leading dot is a file on its way to its name.
_OUR_NAMES = (".", SOCKET, "hypervisor.sock", "node.", "relay.", "handover.", "pods", "stops", "tls", "cluster-id")


def remove(directory: str) -> None:
    """Remove a sandbox's socket and folder; a folder in which somebody else keeps a file stays."""
    for act, path in ((posix.unlink, f"{directory}/{SOCKET}"), (posix.rmdir, directory)):
        try:
            act(path)
        except OSError:
            pass


def own_directory(path: str) -> None:
    """Make a directory with mode 0700. Its parent must exist. Raises `OSError`.

    One that is there already (a hostPath, which the kubelet makes 0755) is closed to others only when nothing but ours
    lies in it: with a setting like `/run` that would lock out every user. The sockets have a mode of their own.
    """
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        if not posix.stat(path).st_mode & 0o077:
            return
        if all(name.startswith(_OUR_NAMES) for name in posix.listdir(path)):
            posix.chmod(path, 0o700)
        else:
            say(f"{path} is open to other users and holds more than our files: its mode is left as it is")
