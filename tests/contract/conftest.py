"""A network namespace for a test, so that a driver which makes links never touches the machine's."""

from caa.testing.bootable import own_network

__all__ = ["own_network"]
