"""`hypervisor.Hypervisor`: how a Kata shim asks for a pod VM."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("hypervisor"))
