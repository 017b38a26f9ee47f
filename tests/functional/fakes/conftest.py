"""A network namespace for a test, so that its bridge never touches the machine's."""

from caa.testing.bootable import own_network

__all__ = ["own_network"]
