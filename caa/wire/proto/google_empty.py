"""`google.protobuf.Empty` of our pool: the answer with nothing in it."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("google/protobuf/empty"))
