"""`google.rpc.Status` of our pool."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("google/rpc/status"))
