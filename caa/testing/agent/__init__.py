"""A stand-in for kata-agent, for tests, demo and benchmarks: the agent's ttrpc services over real `runc` containers.

Run it as `python -m caa.testing.agent --server-addr unix:///run/kata-containers/agent.sock`, as root, inside a mount
namespace of its own (it mounts root file systems and removes `/run/kata-containers`, as the real one does). Habits and
texts of its answers are those of the real agent 4.1.0 as recorded. It isolates nothing worth the name, pulls no images.

Read in this order: `daemon` (wiring), `service` (which method is served by what), `sandbox` and `container` (state),
`process` and `streams` (a process and its standard streams), `runc`, `spec` and `resources` (OCI), `storage`, `images`,
`files`, `cgroups`, `guest`, `kernel`.
"""
