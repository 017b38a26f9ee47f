"""ttrpc for the control plane: a pure state machine, asyncio shells around it, and the messages of the services.

Read `frames`, `events` and `connection` first: bytes in, events out; actions in, bytes out. `status` maps errors.
`streams` is the one file that touches sockets; `server` and `client` turn events into tasks and futures. `proto` holds
one module a proto package.
"""
