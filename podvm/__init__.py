"""What runs inside the pod VM: user data, network, forwarder. Needs no cloud SDK, no Kubernetes client, no protobuf."""
