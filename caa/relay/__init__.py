"""The data plane of a worker node: the runtime's sockets and the links to the pod VMs. Imports `datapath` only.

Read `daemon` first, then `hypervisor_front` (calls about VMs, to the node) and `agent_front` (one link a pod, to its
VM; `session_mux` is such a link where it may break); `commands` is what the node may ask of us, `dial` and `stops`
serve the two fronts, `launch` starts the process. `giving` and `taking` are the two halves of a hand-over to another
relay, `moving` what a link is on its way.
"""
