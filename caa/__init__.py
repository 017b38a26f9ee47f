"""Peer-pods cloud API adaptor: one confidential VM per Kubernetes pod.

Read in this order:

1. `model`      the nouns: sandbox, pod VM instance, pod network, annotations
2. `errors`     every error, its RPC status, whether a retry makes sense
3. `sandbox`    the heart: phases, the steps of a start, the store
4. `node`       the control plane, where the concrete classes meet
5. `relay`      the data plane, on top of `datapath`
6. `wire`, `net`, `userdata`, `provider`, `config`   the seams that the heart talks to
"""

__version__ = "0.1.0"
