"""The fast path: what a frame meets between the shim and the agent, in the relay and in the forwarder alike.

One thread, one epoll, TLS on the descriptor, frames cut through. Nothing of ours is imported here, because this package
decides the memory and the start time of every pod VM (`docs/performance.md`). Read in this order: `frames`, `edits`,
`loop`, `pipe`, `mux`, `tls`, `sockets`, `channel`; then of resumable sessions `greeting`, `session`, `door`, `greeter`,
`clock`, `session_branch`.

Beside what every interpreter loads at its start with `-I -S`, the forwarder's process may have these modules of the
standard library and no others; a test compares `sys.modules` with the list:

    __future__ _functools _heapq _signal _socket _ssl _struct errno fcntl gc posix select struct sys time

Where an interpreter lacks the private name `_ssl`, the module `ssl` takes its place, with what it imports itself.
"""
