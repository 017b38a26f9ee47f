"""Interfaces, routes and neighbours of the agent's messages (package `types`)."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("network_types"))
