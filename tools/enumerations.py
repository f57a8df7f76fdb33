"""zz_generated.openapi.go → the enumerations that a server publishes, which the published files are made without.

Upstream generates its OpenAPI files with the feature OpenAPIEnums off, and serves with it on: what the values are, and a
description that tells them, stand in the generated Go source alone (kubernetes/pkg/generated/openapi).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GENERATED: Final = Path("pkg/generated/openapi/zz_generated.openapi.go")

_FUNCTION: Final = re.compile(r"^func schema_(\w+)\(ref .*?^}", re.MULTILINE | re.DOTALL)
_FIELD: Final = re.compile(r'^\t{5}"([^"]+)": \{\n(.*?)^\t{5}\},', re.MULTILINE | re.DOTALL)
_ENUM: Final = re.compile(r"^(\t+)Enum: +\[\]interface\{\}(\{.*\}),$", re.MULTILINE)
_DESCRIPTION: Final = re.compile(r'^\t{7}Description: ("(?:[^"\\]|\\.)*"),$', re.MULTILINE)
_OF_THE_FIELD: Final = 7  # tabs; what is deeper is said of the items


@dataclass(frozen=True)
class Enumeration:
    """The values of a field, or of `each` of its items, and the field's description as it tells them."""

    field: str
    values: list[str]
    each: bool
    description: str


def read_enumerations(module: Path) -> dict[str, list[Enumeration]]:
    """By definition, of those that enumerate anything; a definition is named by the last parts of its name."""
    text = (module / GENERATED).read_text()
    found = {one[1]: list(_enumerations(one[0])) for one in _FUNCTION.finditer(text) if "Enum:" in one[0]}
    return {name: fields for name, fields in found.items() if fields}


def function_of(definition: str) -> str:
    """The name under which `read_enumerations` has a definition: `io.k8s.api.core.v1.Pod` is `k8sio_api_core_v1_Pod`."""
    parts = definition.split(".")
    if definition.startswith("io.k8s.api."):
        return "_".join(["k8sio", *parts[2:]])
    return "_".join(parts[-5:])


def _enumerations(function: str) -> Iterator[Enumeration]:
    for field in _FIELD.finditer(function):
        enum, description = _ENUM.search(field[2]), _DESCRIPTION.search(field[2])
        if enum is not None:
            values = json.loads(f"[{enum[2][1:-1]}]")
            told = json.loads(description[1]) if description is not None else ""
            yield Enumeration(field[1], values, len(enum[1]) > _OF_THE_FIELD, told)
