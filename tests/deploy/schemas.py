"""From the OpenAPI v3 that our own server publishes to the JSON schemas that kubeconform takes, one file a kind.

They are as strict as the server's own field validation: no field that the schema does not name, IntOrString where Go has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Document = dict[str, Any]

LOCATION = "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json"
"""How kubeconform names a file of these, below their directory."""


def write(read: Callable[[str], Document], directory: Path) -> int:
    """Writes the schemas of all kinds that the server behind `read` (a path's document) publishes; how many."""
    directory.mkdir()
    written = 0
    for link in read("/openapi/v3")["paths"].values():
        document = read(link["serverRelativeURL"])
        schemas = document.get("components", {}).get("schemas", {})
        for schema in schemas.values():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                group = kind["group"] or kind["version"]  # What kubeconform takes for v1's group.
                name = f"{kind['kind']}-{group}-{kind['version']}".lower()
                (directory / f"{name}.json").write_text(json.dumps(_alone(schema, schemas)))
                written += 1
    return written


def _alone(schema: Document, schemas: Document) -> Document:
    """A schema with all it refers to, strict."""
    definitions: Document = {}
    pending = [schema]
    while pending:
        for name in _references(pending.pop()):
            if name not in definitions:
                definitions[name] = _strict(schemas[name])
                pending.append(schemas[name])
    return {**_strict(schema), "definitions": definitions}


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for one in schema for name in _references(one)}
    if not isinstance(schema, dict):
        return set()
    found = {name for one in schema.values() for name in _references(one)}
    reference = schema.get("$ref")
    return found | {reference.rpartition("/")[2]} if isinstance(reference, str) else found


def _strict(schema: Any) -> Any:
    """OpenAPI's dialect in JSON schema's words."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": f"#/definitions/{schema['$ref'].rpartition('/')[2]}"}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    kept: Document = {
        name: schema[name] for name in ("type", "required", "enum", "pattern") if name in schema
    }
    if schema.get("nullable") and isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            kept[name] = [_strict(one) for one in schema[name]]
    if "items" in schema:
        kept["items"] = _strict(schema["items"])
    if "additionalProperties" in schema:
        kept["additionalProperties"] = _strict(schema["additionalProperties"])
    if "properties" in schema:
        kept["properties"] = {name: _strict(one) for name, one in schema["properties"].items()}
        open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if not open_to_all:
            kept["additionalProperties"] = False
    return kept
