"""`grpc.Health`: the shim's Check."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("health"))
