"""The list of what an image holds, as a CycloneDX 1.6 document: packages, inputs, CPython, our code. Pure.

Format: CycloneDX 1.6 JSON schema; package URLs as the purl specification's type `deb`.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from podvm.image.inputs import Input

_NAMESPACE = uuid.UUID("2f2dc7de-4c5d-4f5b-9a6e-6f2f3a4f5c11")


def document(manifest: Mapping[str, Any], inputs: Sequence[Input], *, image: str, version: str) -> bytes:
    """The document for mkosi's manifest; the same for the same image, its serial number too."""
    distribution = str(manifest["config"]["distribution"])
    components = [_package(one, distribution) for one in manifest["packages"]]
    components += [_input(one) for one in inputs]
    components.append({"type": "application", "name": "podvm", "version": version})
    components.sort(key=lambda one: (one["type"], one["name"], one.get("version", "")))
    text = json.dumps(components, sort_keys=True)
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}",
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "name": image, "version": version}},
        "components": components,
    }
    return json.dumps(whole, indent=2).encode() + b"\n"


def _package(package: Mapping[str, str], distribution: str) -> dict[str, Any]:
    name, version, architecture = package["name"], package["version"], package["architecture"]
    purl = f"pkg:deb/{distribution}/{quote(name)}@{quote(version, safe='')}?arch={architecture}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _input(one: Input) -> dict[str, Any]:
    return {
        "type": "application",
        "name": one.name,
        "hashes": [{"alg": "SHA-256", "content": one.sha256}],
        "externalReferences": [{"type": "distribution", "url": one.source}],
    }
