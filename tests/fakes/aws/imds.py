"""A node's instance metadata, version 2 only: a token first, then facts."""

from tests.fakes.faults import Fault, Faults
from tests.fakes.wire import Reply, Request

MAC = "02:00:00:00:00:01"


class Imds:
    """`Service` for a node in this region, subnet and security groups."""

    def __init__(self, *, region: str, subnet: str, groups: tuple[str, ...]) -> None:
        self.faults = Faults()
        nic = f"network/interfaces/macs/{MAC}"
        self._facts = {
            "placement/region": region,
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
        found = self._facts.get(request.path.removeprefix("/latest/meta-data/"))
        return Reply(status=404) if found is None else Reply(body=found.encode())
