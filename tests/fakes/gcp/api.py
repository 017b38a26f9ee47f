"""Google's own description of the Compute Engine API: which calls there are, and what their bodies may hold.

It is the discovery document that the package google-api-python-client carries.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Called:
    """One call: its id without `compute.`, the parts of its path, and its description."""

    name: str
    parts: Mapping[str, str]
    method: Mapping[str, Any]


@lru_cache(maxsize=1)
def document() -> Mapping[str, Any]:
    """The whole description."""
    path = files("googleapiclient.discovery_cache").joinpath("documents/compute.v1.json")
    found: Mapping[str, Any] = json.loads(path.read_text())
    return found


@lru_cache(maxsize=1)
def _routes() -> list[tuple[str, re.Pattern[str], Mapping[str, Any]]]:
    found = []
    for resource in document()["resources"].values():
        for method in resource.get("methods", {}).values():
            pattern = re.sub(r"\{\+?(\w+)\}", r"(?P<\1>[^/]+)", method["flatPath"])
            found.append((method["httpMethod"], re.compile(pattern), method))
    return found


def called(verb: str, path: str) -> Called | None:
    """The call that a request is, None for none that the API has."""
    if not path.startswith("/compute/v1/"):
        return None
    for method_verb, pattern, method in _routes():
        if method_verb == verb and (match := pattern.fullmatch(path.removeprefix("/compute/v1/"))):
            return Called(method["id"].removeprefix("compute."), match.groupdict(), method)
    return None


def problems(call: Called, query: Mapping[str, str], body: object) -> Iterator[str]:
    """What the API would refuse before it looks at any resource."""
    known = {**call.method.get("parameters", {}), **document()["parameters"]}
    for name in query:
        if name not in known:
            yield f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
    for name, value in call.parts.items():
        if not re.fullmatch(known[name].get("pattern", ".+"), value):
            yield f"Invalid value '{value}' for field '{name}'."
    if "request" in call.method:
        yield from _misfits(call.method["request"]["$ref"], body, "resource")
    elif body is not None:
        yield "The call takes no body."


def _misfits(schema: str, value: object, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"Invalid value at '{where}': an object is expected."
        return
    fields = document()["schemas"][schema]["properties"]
    for name, one in value.items():
        if name not in fields:
            yield f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
        elif fields[name].get("readOnly") or str(fields[name].get("description", "")).startswith("[Output Only]"):
            yield f"Invalid value for field '{where}.{name}': it is output only."
        else:
            yield from _misfit(fields[name], one, f"{where}.{name}")


def _misfit(field: Mapping[str, Any], value: object, where: str) -> Iterator[str]:
    if "$ref" in field:
        yield from _misfits(field["$ref"], value, where)
        return
    if not isinstance(value, _TYPES[field["type"]]) or (field["type"] == "integer" and isinstance(value, bool)):
        yield f"Invalid value for field '{where}': {value!r}. A {field['type']} is expected."
    elif "enum" in field and value not in field["enum"]:
        yield f"Invalid value for field '{where}': '{value}'. Possible values are {', '.join(field['enum'])}."
    elif field.get("format") == "int64" and not re.fullmatch(r"-?[0-9]+", str(value)):
        yield f"Invalid value for field '{where}': '{value}' is no number."
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _misfit(field["items"], one, f"{where}[{index}]")
    elif isinstance(value, dict) and "additionalProperties" in field:
        for key, one in value.items():
            yield from _misfit(field["additionalProperties"], one, f"{where}.{key}")
