"""A node's instance metadata, version 2 only: a token first, then facts, and the credentials of its role."""

import json

from tests.fakes.aws.identity import Identity
from tests.fakes.faults import Fault, Faults
from tests.fakes.wire import Reply, Request

MAC = "02:00:00:00:00:01"


class Imds:
    """`Service` for a node in this region, subnet and security groups; with `identity` it has an instance profile."""

    def __init__(self, *, region: str, subnet: str, groups: tuple[str, ...], identity: Identity | None = None) -> None:
        self.identity = identity
        self.faults = Faults()
        nic = f"network/interfaces/macs/{MAC}"
        self._facts = {
            "placement/region": region,
            "local-ipv4": "10.0.0.10",
            "mac": MAC,
            f"{nic}/subnet-id": subnet,
            f"{nic}/security-group-ids": "\n".join(groups),
        }

    def call_of(self, request: Request) -> str:
        return f"{request.method} {request.path}"

    def refusal(self, fault: Fault, request: Request) -> Reply:
        return Reply(status=503)

    def answer(self, request: Request) -> Reply:
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            return Reply(body=b"token-1")
        if request.headers.get("x-aws-ec2-metadata-token") != "token-1":
            return Reply(status=401)
        asked = request.path.removeprefix("/latest/meta-data/")
        if self.identity is not None and asked.startswith("iam/security-credentials/"):
            return self._credentials(asked)
        found = self._facts.get(asked)
        return Reply(status=404) if found is None else Reply(body=found.encode())

    def _credentials(self, asked: str) -> Reply:
        assert self.identity is not None
        if not asked.endswith("/node"):
            return Reply(body=b"node")
        given = self.identity.issue("ASIANODE")
        body = {"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", **given}
        return Reply(body=json.dumps(body).encode())
