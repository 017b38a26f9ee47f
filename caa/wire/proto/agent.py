"""`grpc.AgentService`, and with it every message of the packages `grpc` (agent, oci, csi) and `types`."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("network_types", "csi", "oci", "agent"))
