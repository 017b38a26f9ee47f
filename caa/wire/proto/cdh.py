"""The confidential data hub's services inside the pod VM (package `api`)."""

from caa.wire.proto.descriptors import symbols

globals().update(symbols("cdh"))
