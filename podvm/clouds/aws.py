"""User data from EC2's instance metadata service, version 2 only: a token first, then the document, as raw bytes.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
Version 1 is never asked: what a container or a server-side request forgery can reach, it could answer as well.
"""

from caa.errors import InvalidInput
from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine, is_aws
from podvm.clouds.metadata import Service

_TOKEN_SECONDS = "60"  # noqa: S105  # the token is used at once


class Aws:
    """EC2."""

    name = "aws"

    def __init__(self, machine: Machine, service: Service | None = None) -> None:
        self._machine = machine
        self._service = service or Service(self.name)

    def present(self) -> bool:
        """Whether this is an EC2 instance, by SMBIOS."""
        return is_aws(self._machine)

    def fetch(self, seconds: float) -> bytes:
        """Token and document, in one try."""
        ask, want = self._service.ask, self._service.want
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS}
        answer = ask("PUT", "/latest/api/token", headers=lifetime, seconds=seconds)
        token = want(answer, "a session token", hint="enable the instance's metadata endpoint")
        if not token.isascii() or not token.strip():
            raise InvalidInput("aws: the metadata service's session token is not ASCII text")
        header = {"X-aws-ec2-metadata-token": token.decode("ascii").strip()}
        answer = ask("GET", "/latest/user-data", headers=header, seconds=seconds)
        return plain(want(answer, "user data", hint="the instance was launched without user data"), self.name)
