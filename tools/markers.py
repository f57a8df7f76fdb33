"""types.go → which values a field may have: the enums, and the markers of declarative validation.

The published OpenAPI has neither. Facts alone, by struct and JSON name; a field without any is not in the table.

    {"PodSpec": {"restartPolicy": {"enum": ["Always", "Never", "OnFailure"]}, …}, …}

`each` holds what is said of the elements of a list or the values of a map. Markers that upstream says of a field only where
a feature gate is on are left out; those it calls alpha or beta repeat what its handwritten validation says, and are in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Rules = dict[str, Any]
Table = dict[str, dict[str, Rules]]

_FLAGS: Final = frozenset(("required", "immutable"))
_NUMBERS: Final = frozenset(
    ("maxItems", "minItems", "minimum", "maximum", "maxLength", "minLength", "maxBytes", "maxProperties")
)
_TEXTS: Final = frozenset(("format",))

_CONST: Final = re.compile(
    r'^\s*\w+\s+(?P<type>\w+)\s*=\s*"(?P<value>[^"]*)"|^\s*\w+\s*=\s*(?P<called>\w+)\("(?P<given>[^"]*)"\)',
    re.MULTILINE,
)
_TYPE: Final = re.compile(
    r"(?P<comment>(?:^//[^\n]*\n|^\n(?=//))*)^type (?P<name>\w+) (?P<what>string|struct \{\n(?P<body>.*?)^\})",
    re.MULTILINE | re.DOTALL,
)
_FIELD: Final = re.compile(
    r"(?P<comment>(?:^\t//[^\n]*\n)*)^\t(?:(?P<name>\w+)[ \t]+)?(?P<type>[\w.*\[\]]+)[ \t]+`(?P<tags>[^`\n]*)`",
    re.MULTILINE,
)
_JSON: Final = re.compile(r'json:"([^",]*)((?:,\w+)*)"')
_MARKER: Final = re.compile(r"^\s*// *\+k8s:(.+?)\s*$", re.MULTILINE)
_STAGE: Final = re.compile(r"(?:alpha|beta)\([^)]*\)=\+k8s:")
_IMPORT: Final = re.compile(r'^\s*(?:(\w+)\s+)?"k8s\.io/api/([\w/]+)"', re.MULTILINE)


@dataclass(frozen=True)
class _Source:
    """One package of k8s.io/api: its enums, and its structs' bodies with what other packages they name."""

    directory: str
    enums: dict[str, list[str]]
    structs: dict[str, str]
    imports: dict[str, str]


def read_markers(module: Path) -> dict[str, Table]:
    """By package as definitions name it (`io.k8s.api.core.v1`), of the directory of k8s.io/api."""
    sources = {
        str(path.parent.relative_to(module)): _source(path.parent, module)
        for path in sorted(module.glob("*/*/types.go"))
    }
    found = {}
    for directory, source in sources.items():
        table = {name: rules for name in source.structs if (rules := _fields(name, source, sources))}
        if table:
            found[f"io.k8s.api.{directory.replace('/', '.')}"] = table
    return found


def _source(directory: Path, module: Path) -> _Source:
    texts = [
        path.read_text()
        for path in sorted(directory.glob("*.go"))
        if not path.name.startswith(("zz_", "generated")) and not path.name.endswith("_test.go")
    ]
    values: dict[str, list[str]] = {}
    enums: dict[str, list[str]] = {}
    structs: dict[str, str] = {}
    imports: dict[str, str] = {}
    for text in texts:
        for one in _CONST.finditer(text):
            kind, value = one["type"] or one["called"], one["value"] if one["type"] else one["given"]
            values.setdefault(kind, []).append(value)
        for alias, path in _IMPORT.findall(text):
            imports[alias or path.rpartition("/")[2]] = path
    for text in texts:
        for one in _TYPE.finditer(text):
            if one["body"] is not None:
                structs[one["name"]] = one["body"]
            elif re.search(r"^// *\+(?:k8s:)?enum\s*$", one["comment"], re.MULTILINE):
                enums[one["name"]] = sorted(set(values.get(one["name"], ())))
    return _Source(str(directory.relative_to(module)), enums, structs, imports)


def _fields(name: str, source: _Source, sources: dict[str, _Source]) -> dict[str, Rules]:
    found: dict[str, Rules] = {}
    for field in _FIELD.finditer(source.structs.get(name, "")):
        tag = _JSON.search(field["tags"])
        kind = field["type"]
        if tag is None:
            continue
        if not tag[1]:
            # Inlined: its fields are the struct's own.
            if "." not in kind:
                found |= _fields(kind.lstrip("*"), source, sources)
            continue
        rules = _rules(field["comment"])
        values = _enum_of(kind, source, sources)
        if values:
            holder = rules.setdefault("each", {}) if "]" in kind else rules
            holder["enum"] = values
        if rules:
            found[tag[1]] = rules
    return found


def _enum_of(kind: str, source: _Source, sources: dict[str, _Source]) -> list[str]:
    bare = kind.rpartition("]")[2].lstrip("*")
    alias, dot, name = bare.rpartition(".")
    if not dot:
        return source.enums.get(bare, [])
    there = sources.get(source.imports.get(alias, ""))
    return there.enums.get(name, []) if there is not None else []


def _rules(comment: str) -> Rules:
    rules: Rules = {}
    for marker in _MARKER.findall(comment):
        _read_marker(_STAGE.sub("", marker), rules)
    return rules


def _read_marker(marker: str, rules: Rules) -> None:
    if marker.startswith("eachVal=+k8s:"):
        each = rules.setdefault("each", {})
        _read_marker(marker.removeprefix("eachVal=+k8s:"), each)
        if not each:
            del rules["each"]
        return
    name, _, value = marker.partition("=")
    value = value.partition("#")[0].strip()
    if name in _FLAGS and not value:
        rules[name] = True
    elif name in _NUMBERS and value.lstrip("-").isdigit():
        rules[name] = int(value)
    elif name in _TEXTS:
        rules[name] = value
