"""`azure-ready`: tells Azure that the machine is up, else it stays "creating" and is given up after 40 minutes.

The WireServer's protocol in three requests (`reference/podvm.md` 1.5): its versions, the goal state, our health.
"""

import logging
import re

from caa.errors import CaaError, DeadlineExceeded, InvalidInput, Unavailable
from podvm.clock import Clock
from podvm.clouds.machine import Machine, is_azure
from podvm.clouds.metadata import Service

_log = logging.getLogger(__name__)

_HOST = "168.63.129.16"
_VERSION = "2012-11-30"  # of the protocol; spoken since then
_SECONDS = 600.0  # Azure waits longer; the pod does not wait for this at all
_PAUSE = 5.0
_WORD = "[A-Za-z0-9_.-]{1,128}"
_FIELDS = ("Incarnation", "ContainerId", "InstanceId")


def run(machine: Machine | None = None, service: Service | None = None, *, clock: Clock | None = None) -> int:
    """The program: 0 when Azure has been told, or where this is not Azure; else 1."""
    if not is_azure(machine or Machine()):
        _log.info("not a machine of Azure, nobody to tell")
        return 0
    try:
        _until_told(service or Service("azure", _HOST), clock or Clock())
    except CaaError as error:
        _log.error("Azure does not know that this machine is ready: %s", error)
        return 1
    _log.info("Azure knows that this machine is ready")
    return 0


def _until_told(service: Service, clock: Clock) -> None:
    end = clock.now() + _SECONDS
    while True:
        try:
            return tell(service, max(end - clock.now(), 1.0))
        except Unavailable as error:
            if clock.now() + _PAUSE >= end:
                raise DeadlineExceeded(f"not within {_SECONDS:g} s: {error}") from error
        clock.sleep(_PAUSE)


def tell(service: Service, seconds: float) -> None:
    """One try. Raises `Unavailable` (later, perhaps) or `InvalidInput`."""
    answer = service.ask("GET", "/?comp=versions", headers={}, seconds=seconds)
    if _VERSION.encode() not in service.want(answer, "the WireServer's versions"):
        raise InvalidInput(f"azure: the WireServer does not speak {_VERSION}")
    headers = {"x-ms-version": _VERSION}
    answer = service.ask("GET", "/machine/?comp=goalstate", headers=headers, seconds=seconds)
    body = health(service.want(answer, "the goal state"))
    headers = {**headers, "Content-Type": "text/xml; charset=utf-8"}
    answer = service.ask("POST", "/machine/?comp=health", headers=headers, body=body, seconds=seconds)
    service.want(answer, "the report of our health")


def health(goal_state: bytes) -> bytes:
    """The report for a goal state. Its three words are looked for, no XML of the host's is parsed."""
    text = goal_state.decode("utf-8", "replace")
    found = [re.search(f"<{name}>({_WORD})</{name}>", text) for name in _FIELDS]
    words = [match[1] for match in found if match is not None]
    if len(words) < len(_FIELDS):
        raise InvalidInput(f"azure: the goal state lacks one of {', '.join(_FIELDS)}")
    incarnation, container, instance = words
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">'
        f"<GoalStateIncarnation>{incarnation}</GoalStateIncarnation>"
        f"<Container><ContainerId>{container}</ContainerId><RoleInstanceList><Role><InstanceId>{instance}</InstanceId>"
        "<Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>"
    ).encode()
