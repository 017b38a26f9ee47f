"""Google's own descriptions of its APIs: which calls there are, and what their bodies may hold.

They are the discovery documents that the package google-api-python-client carries.
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
    """One call: its id, without `compute.`, the parts of its path, and its description."""

    name: str
    parts: Mapping[str, str]
    method: Mapping[str, Any]
    api: "Api"

    @property
    def path(self) -> str:
        """The path of the resource: of the project that is named first, and on."""
        found = re.search(r"projects/.*", self.method["flatPath"])
        return re.sub(r"\{\+?(\w+)\}", lambda one: self.parts[one[1]], found[0]) if found else ""


@dataclass(frozen=True, slots=True)
class Api:
    """One API: the name of its document, where its paths begin, and what its calls' ids begin with."""

    name: str
    root: str
    prefix: str

    def called(self, verb: str, path: str) -> Called | None:
        """The call that a request is, None for none that the API has."""
        if not path.startswith(self.root):
            return None
        for method_verb, pattern, method in _routes(self):
            if method_verb == verb and (match := pattern.fullmatch(path.removeprefix(self.root))):
                return Called(method["id"].removeprefix(self.prefix), match.groupdict(), method, self)
        return None


COMPUTE = Api("compute.v1", "/compute/v1/", "compute.")
RESOURCE_MANAGER = Api("cloudresourcemanager.v3", "/", "cloudresourcemanager.")
IAM_CREDENTIALS = Api("iamcredentials.v1", "/", "iamcredentials.projects.")


def called(verb: str, path: str) -> Called | None:
    """The call of any of the APIs."""
    found = (one.called(verb, path) for one in (COMPUTE, RESOURCE_MANAGER, IAM_CREDENTIALS))
    return next((one for one in found if one is not None), None)


def problems(call: Called, query: Mapping[str, str], body: object) -> Iterator[str]:
    """What the API would refuse before it looks at any resource."""
    document = _document(call.api.name)
    known = {**call.method.get("parameters", {}), **document["parameters"]}
    for name in query:
        if name not in known:
            yield f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
    for name, value in call.parts.items():
        if name in known and not re.fullmatch(known[name].get("pattern", ".+"), value):
            yield f"Invalid value '{value}' for field '{name}'."
    if "request" in call.method:
        yield from _Schemas(document["schemas"]).misfits(call.method["request"]["$ref"], body, "resource")
    elif body is not None:
        yield "The call takes no body."


def mistakes(call: Called, answer: object) -> Iterator[str]:
    """What of an answer of the fake's is not as the API would write it."""
    schemas = _Schemas(_document(call.api.name)["schemas"], answers=True)
    yield from schemas.misfits(call.method["response"]["$ref"], answer, call.name)


@lru_cache(maxsize=3)
def _document(name: str) -> Mapping[str, Any]:
    path = files("googleapiclient.discovery_cache").joinpath(f"documents/{name}.json")
    found: Mapping[str, Any] = json.loads(path.read_text())
    return found


@lru_cache(maxsize=3)
def _routes(api: Api) -> list[tuple[str, re.Pattern[str], Mapping[str, Any]]]:
    found = []
    for method in sorted(_methods(_document(api.name)), key=lambda one: str(one["flatPath"]).count("{")):
        pattern = re.sub(r"\{\+?(\w+)\}", r"(?P<\1>[^/]+?)", method["flatPath"])
        found.append((method["httpMethod"], re.compile(pattern), method))
    return found


def _methods(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in part.get("resources", {}).values():
        yield from resource.get("methods", {}).values()
        yield from _methods(resource)


def _is_output(field: Mapping[str, Any]) -> bool:
    return bool(field.get("readOnly")) or str(field.get("description", "")).startswith("[Output Only]")


@dataclass(frozen=True, slots=True)
class _Schemas:
    known: Mapping[str, Any]
    answers: bool = False  # which may have what is output only

    def misfits(self, schema: str, value: object, where: str) -> Iterator[str]:
        """What is wrong with an object of this schema."""
        if not isinstance(value, dict):
            yield f"Invalid value at '{where}': an object is expected."
            return
        fields = self.known[schema]["properties"]
        for name, one in value.items():
            if one is None:  # the same as a field that is not there
                continue
            if name not in fields:
                yield f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            elif not self.answers and _is_output(fields[name]):
                yield f"Invalid value for field '{where}.{name}': it is output only."
            else:
                yield from self._misfit(fields[name], one, f"{where}.{name}")

    def _misfit(self, field: Mapping[str, Any], value: object, where: str) -> Iterator[str]:
        if "$ref" in field:
            yield from self.misfits(field["$ref"], value, where)
            return
        if not isinstance(value, _TYPES[field["type"]]) or (field["type"] == "integer" and isinstance(value, bool)):
            yield f"Invalid value for field '{where}': {value!r}. A {field['type']} is expected."
        elif "enum" in field and value not in field["enum"]:
            yield f"Invalid value for field '{where}': '{value}'. Possible values are {', '.join(field['enum'])}."
        elif field.get("format") == "int64" and not re.fullmatch(r"-?[0-9]+", str(value)):
            yield f"Invalid value for field '{where}': '{value}' is no number."
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from self._misfit(field["items"], one, f"{where}[{index}]")
        elif isinstance(value, dict) and "additionalProperties" in field:
            for key, one in value.items():
                yield from self._misfit(field["additionalProperties"], one, f"{where}.{key}")
