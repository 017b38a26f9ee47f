"""User data from Alibaba Cloud's metadata server, by a session token where the server gives one.

https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
Instances in security hardening mode answer nothing without a token; servers of old know no tokens.
"""

from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine, is_alibabacloud
from podvm.clouds.metadata import Service

_HOST = "100.100.100.200"
_LIFETIME = "60"  # seconds; the token is used at once
_NO_TOKENS = frozenset({404, 405, 501})


class AlibabaCloud:
    """Elastic Compute Service."""

    name = "alibabacloud"

    def __init__(self, machine: Machine, service: Service | None = None) -> None:
        self._machine = machine
        self._service = service or Service(self.name, _HOST)

    def present(self) -> bool:
        """Whether this is an ECS instance, by SMBIOS."""
        return is_alibabacloud(self._machine)

    def fetch(self, seconds: float) -> bytes:
        """The document, in one try."""
        answer = self._service.ask("GET", "/latest/user-data", headers=self._token(seconds), seconds=seconds)
        body = self._service.want(answer, "user data", hint="the instance was created without user data")
        return plain(body, self.name)

    def _token(self, seconds: float) -> dict[str, str]:
        lifetime = {"X-aliyun-ecs-metadata-token-ttl-seconds": _LIFETIME}
        answer = self._service.ask("PUT", "/latest/api/token", headers=lifetime, seconds=seconds)
        if answer.status in _NO_TOKENS:
            return {}
        token = self._service.want(answer, "a session token").decode("ascii", "replace").strip()
        return {"X-aliyun-ecs-metadata-token": token}
