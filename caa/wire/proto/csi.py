"""Volume statistics (package `grpc`)."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("csi"))
