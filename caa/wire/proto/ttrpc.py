"""The ttrpc envelope, and the google messages it is made of: Status, Any, Empty."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("google/protobuf/any", "google/protobuf/empty", "google/rpc/status", "ttrpc"))
