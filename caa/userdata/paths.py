"""The guest paths that user data may fill, and where they lead."""

DIRECTORY = "/run/peerpod"
FORWARDER = f"{DIRECTORY}/apf.json"
REGISTRY_AUTH = f"{DIRECTORY}/auth.json"
INITDATA = f"{DIRECTORY}/initdata"
INITDATA_DIGEST = f"{DIRECTORY}/initdata.digest"
SCRATCH_MARKER = f"{DIRECTORY}/scratch-space.marker"
ATTESTATION_AGENT = f"{DIRECTORY}/aa.toml"
DATA_HUB = f"{DIRECTORY}/cdh.toml"
POLICY = f"{DIRECTORY}/policy.rego"

# What process-user-data writes, by source; every other path is skipped (reference/podvm.md 1.8).
FROM_USER_DATA = frozenset({ATTESTATION_AGENT, DATA_HUB, FORWARDER, REGISTRY_AUTH, INITDATA, SCRATCH_MARKER})
FROM_INITDATA = frozenset({ATTESTATION_AGENT, DATA_HUB, POLICY})
