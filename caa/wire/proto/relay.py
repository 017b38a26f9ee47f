"""`caa.relay.v1.AgentLinks`: what the control plane asks of the data plane."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("relay"))
