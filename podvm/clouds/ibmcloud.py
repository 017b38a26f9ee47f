"""User data from IBM Cloud's VPC metadata service: an instance identity token first, then the initialization data.

https://cloud.ibm.com/docs/vpc?topic=vpc-get-metadata-vsi . The service is off unless the instance was created with
it; the config drive (`podvm.clouds.nocloud`), which every instance has, is asked before.
"""

import json
from typing import Any

from caa.errors import InvalidInput
from podvm.clouds.encoding import plain
from podvm.clouds.machine import Machine, is_ibmcloud
from podvm.clouds.metadata import Service

_VERSION = "version=2022-03-01"  # the first with tokens; dated versions stay as they are
_TOKEN = f"/instance_identity/v1/token?{_VERSION}"
_DATA = f"/metadata/v1/instance/initialization?{_VERSION}"
_LIFETIME = 300  # seconds, as the service itself would choose
_OFF = "enable the instance's metadata service with protocol http, or give it a config drive"


class IbmCloud:
    """Virtual Private Cloud."""

    name = "ibmcloud"

    def __init__(self, machine: Machine, service: Service | None = None) -> None:
        self._machine = machine
        self._service = service or Service(self.name)

    def present(self) -> bool:
        """Whether this is a VPC instance, by SMBIOS."""
        return is_ibmcloud(self._machine)

    def fetch(self, seconds: float) -> bytes:
        """Token and document, in one try."""
        ask, want = self._service.ask, self._service.want
        headers = {"Metadata-Flavor": "ibm", "Content-Type": "application/json", "Accept": "application/json"}
        wish = json.dumps({"expires_in": _LIFETIME}).encode()
        answer = ask("PUT", _TOKEN, headers=headers, body=wish, seconds=seconds)
        token = _text(want(answer, "an identity token", hint=_OFF), "access_token")
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        answer = ask("GET", _DATA, headers=headers, seconds=seconds)
        document = _text(want(answer, "user data", hint=_OFF), "user_data")
        return plain(document.encode(), self.name)


def _text(body: bytes, key: str) -> str:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("ibmcloud: the metadata service's answer is not JSON") from None
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, str) or (any(ord(letter) < 32 for letter in value) and key == "access_token"):
        raise InvalidInput(f"ibmcloud: the metadata service's answer has no text {key!r}")
    return value
