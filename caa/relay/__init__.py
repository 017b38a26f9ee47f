"""The data plane of a worker node: the runtime's sockets and the links to the pod VMs. Imports `datapath` only."""
