"""`podvminfo.PodVMInfo`: which pod runs in which VM."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("podvminfo"))
