"""Azure's bodies against the official models of its SDK: an unknown, misplaced or ill-typed field is Azure's 400."""

import json
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from tests.fakes.wire import Reply

_PLAIN: Mapping[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


class Refused(Exception):
    """Azure says no: code, message, HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status

    def reply(self, headers: Mapping[str, str] | None = None) -> Reply:
        """As Azure writes it."""
        return answer({"error": {"code": self.code, "message": self.message}}, status=self.status, headers=headers)


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(status=status, body=json.dumps(body).encode(), headers={**kind, **(headers or {})})


def check(model: type, body: object, path: str = "") -> None:
    """Raise `Refused` unless the body is one of this model, whole and without what only Azure may set."""
    if not isinstance(body, dict):
        raise Refused("InvalidRequestContent", f"The request content was invalid: '{path}' has to be an object.")
    model()  # the SDK's models know their fields once one was made
    fields: Mapping[str, Any] = {one._rest_name: one for one in model._attr_to_rest_field.values()}  # type: ignore[attr-defined]
    for key, value in body.items():
        if key not in fields:
            raise Refused(
                "InvalidRequestContent",
                f"Could not find member '{key}' on object of type '{model.__name__}'. Path '{path}'.",
            )
        if fields[key]._visibility == ["read"]:
            raise Refused("InvalidParameter", f"The property '{path}.{key}' is read-only.")
        if value is not None:
            _check_value(fields[key]._type, value, path=f"{path}.{key}".strip("."))
    _refuse_incomplete(model, body, path)


def _refuse_incomplete(model: type, body: Mapping[str, object], path: str) -> None:
    names = {attribute: field for one in reversed(model.__mro__) for attribute, field in _annotations(one).items()}
    fields: Mapping[str, Any] = model._attr_to_rest_field  # type: ignore[attr-defined]
    for attribute, annotation in names.items():
        field = fields.get(attribute)
        if field is None or field._visibility == ["read"] or type(None) in typing.get_args(annotation):
            continue
        if field._rest_name not in body:
            raise Refused("InvalidParameter", f"Required parameter '{path}.{field._rest_name}' is missing (null).")


def _annotations(model: type) -> Mapping[str, Any]:
    found: Mapping[str, Any] = vars(model).get("__annotations__", {})
    return found


def _check_value(kind: Any, value: Any, *, path: str) -> None:
    name = getattr(getattr(kind, "func", None), "__name__", "")
    inner = kind.args[0] if getattr(kind, "args", ()) else None
    if name == "_deserialize_with_optional":
        _check_value(inner, value, path=path)
    elif name == "_deserialize_sequence":
        _refuse_unless(isinstance(value, list), path, "a list")
        for number, one in enumerate(value):
            _check_value(inner, one, path=f"{path}[{number}]")
    elif name == "_deserialize_dict":
        _refuse_unless(isinstance(value, dict), path, "an object")
        for key, one in value.items():
            _check_value(inner, one, path=f"{path}.{key}")
    elif name == "_deserialize_model":
        check(inner, value, path)
    elif name == "_deserialize_with_union":
        kinds = [one.args[0] for one in inner if getattr(one, "args", ())]
        _check_enum(kinds, value, path=path)
    elif inner in _PLAIN:
        fits = isinstance(value, _PLAIN[inner]) and (inner is bool or not isinstance(value, bool))
        _refuse_unless(fits, path, inner.__name__)


def _check_enum(kinds: list[Any], value: Any, *, path: str) -> None:
    """Azure reads enumerations without regard to case."""
    words = [str(one.value) for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for one in kind]
    open_ended = path.endswith("vmSize")  # the model lists the sizes of years ago
    fits = isinstance(value, str) and (open_ended or value.lower() in {one.lower() for one in words})
    _refuse_unless(fits, path, f"one of {', '.join(words)}")


def _refuse_unless(fits: bool, path: str, wanted: str) -> None:
    if not fits:
        raise Refused("InvalidRequestContent", f"Error converting the value of '{path}': it has to be {wanted}.")
