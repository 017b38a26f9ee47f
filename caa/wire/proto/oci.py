"""The OCI runtime specification as the agent's messages carry it (package `grpc`)."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("oci"))
