"""`google.protobuf.Any` of our pool."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("google/protobuf/any"))
