"""EC2's requests against the service model that botocore carries: an unknown or ill-typed parameter is EC2's 400."""

import functools
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

import botocore.session

from tests.fakes.wire import Reply

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15"


class Refused(Exception):
    """EC2 says no: code, message, HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status

    def reply(self, headers: Mapping[str, str] | None = None) -> Reply:
        """As EC2 writes it."""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            "</Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
        )
        return Reply(status=self.status, body=text.encode(), headers={"Content-Type": "text/xml", **(headers or {})})


@functools.cache
def service() -> Any:
    """EC2's service model."""
    return botocore.session.get_session().get_service_model("ec2")


def check(action: str, form: Mapping[str, str]) -> None:
    """Raise `Refused` unless the form is a request of this action."""
    if action not in service().operation_names:
        raise Refused("InvalidAction", f"The action {action} is not valid for this web service.")
    shape = service().operation_model(action).input_shape
    given = [key for key in form if key not in ("Action", "Version")]
    for key in given:
        _check(shape, key.split("."), key=key, value=form[key])
    names = _names(shape)
    for needed in shape.required_members:
        wire = next(name for name, member in names.items() if member is shape.members[needed])
        if not any(key == wire or key.startswith(wire + ".") for key in given):
            raise Refused("MissingParameter", f"The request must contain the parameter {needed}")


def _check(shape: Any, parts: list[str], *, key: str, value: str) -> None:
    kind = shape.type_name
    if kind == "structure" and parts:
        member = _names(shape).get(parts[0])
        if member is None:
            raise Refused("UnknownParameter", f"The parameter {key} is not recognized")
        _check(member, parts[1:], key=key, value=value)
    elif kind == "list" and parts and parts[0].isdigit():
        _check(shape.member, parts[1:], key=key, value=value)
    elif parts or kind in ("structure", "list"):
        raise Refused("UnknownParameter", f"The parameter {key} is not recognized")
    else:
        _check_value(shape, key, value)


def _check_value(shape: Any, key: str, value: str) -> None:
    bad = {
        "boolean": lambda: value not in ("true", "false"),
        "integer": lambda: not value.lstrip("-").isdigit(),
        "long": lambda: not value.lstrip("-").isdigit(),
        "string": lambda: bool(getattr(shape, "enum", ())) and value not in shape.enum,
    }.get(shape.type_name)
    if bad and bad():
        raise Refused("InvalidParameterValue", f"Value ({value[:80]}) for parameter {key} is invalid.")


def _names(shape: Any) -> dict[str, Any]:
    """Members by their name in an EC2 query."""
    return {_wire_name(name, member): member for name, member in shape.members.items()}


def _wire_name(name: str, member: Any) -> str:
    serialization = member.serialization
    if "queryName" in serialization:
        return str(serialization["queryName"])
    found = str(serialization.get("name", name))
    return found[0].upper() + found[1:]
