"""User data from Azure's instance metadata service, which hands it out in base64.

https://learn.microsoft.com/azure/virtual-machines/user-data
"""

from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine, is_azure
from podvm.clouds.metadata import Service

_PATH = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text"


class Azure:
    """Azure virtual machines."""

    name = "azure"

    def __init__(self, machine: Machine, service: Service | None = None) -> None:
        self._machine = machine
        self._service = service or Service(self.name)

    def present(self) -> bool:
        """Whether this is an Azure VM, by SMBIOS or CPUID."""
        return is_azure(self._machine)

    def fetch(self, seconds: float) -> bytes:
        """The document, in one try."""
        answer = self._service.ask("GET", _PATH, headers={"Metadata": "true"}, seconds=seconds)
        body = self._service.want(answer, "user data", hint="the VM was created without userData")
        return plain(body, self.name)
