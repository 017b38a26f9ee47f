"""User data from Google Cloud's metadata server: the instance attribute `user-data`, in base64 from the driver.

https://cloud.google.com/compute/docs/metadata/querying-metadata
The address is used and not the name `metadata.google.internal`, so that no DNS server decides who answers.
"""

from caa.errors import Unavailable
from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine, is_gcp
from podvm.clouds.metadata import Service

_PATH = "/computeMetadata/v1/instance/attributes/user-data"
_FLAVOR = "Google"


class Gcp:
    """Google Compute Engine."""

    name = "gcp"

    def __init__(self, machine: Machine, service: Service | None = None) -> None:
        self._machine = machine
        self._service = service or Service(self.name)

    def present(self) -> bool:
        """Whether this is a Compute Engine instance, by SMBIOS."""
        return is_gcp(self._machine)

    def fetch(self, seconds: float) -> bytes:
        """The document, in one try. Whoever does not say `Metadata-Flavor: Google` is not the metadata server."""
        answer = self._service.ask("GET", _PATH, headers={"Metadata-Flavor": _FLAVOR}, seconds=seconds)
        if answer.headers.get("metadata-flavor") != _FLAVOR:
            raise Unavailable("gcp: what answers at the metadata server's address does not say Metadata-Flavor: Google")
        body = self._service.want(answer, "user data", hint="the instance has no attribute user-data")
        return plain(body, self.name)
