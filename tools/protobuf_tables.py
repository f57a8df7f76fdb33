"""generated.proto and the Go types beside it → tables by which a protobuf body becomes JSON.

A table says for every message and field number: the JSON name, the type, and how the field is held. Types come from the
.proto file; JSON names and whether a zero is a value come from the Go struct's tags, which are
the only place where upstream says them.

    {"Lease": {"1": ["metadata", ".k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta", "z"], …}, …}

The third element: "" an optional field whose zero value is not written; "k" whose zero value is kept (a pointer, or a field
without omitempty); "z" a message left out when empty (omitzero); "r" repeated; "m" a map with string keys; "i" fields that belong to the
message itself (an inlined struct); "l" the message is nothing but this list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Table = dict[str, dict[str, list[str]]]

_PACKAGE: Final = re.compile(r"^package ([\w.]+);", re.MULTILINE)
_MESSAGE: Final = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD: Final = re.compile(
    r"^\s*(?:(?P<label>optional|repeated|required) (?P<type>[\w.]+)|map<(?P<key>\w+), (?P<value>[\w.]+)>)"
    r" (?P<name>\w+) = (?P<number>\d+)(?: \[[^\]]*\])?;",
    re.MULTILINE,
)
_STRUCT: Final = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_LIST_TYPE: Final = re.compile(r"^type (\w+) \[\]\w", re.MULTILINE)
_TAGGED: Final = re.compile(r"^\s*(?P<left>[^`/\n]+?)\s+`(?P<tags>[^`\n]+)`", re.MULTILINE)
_TAG: Final = re.compile(r'(\w+):"([^"]*)"')
_GROUP: Final = re.compile(r'^const GroupName = "([^"]*)"', re.MULTILINE)
_SCALARS: Final = frozenset(("string", "bytes", "bool", "double", "int32", "int64"))


@dataclass(frozen=True)
class GoField:
    """What a Go struct says of one field: its JSON name ("" where it is inlined), and when zero is left out."""

    json: str
    pointer: bool
    omitempty: bool
    omitzero: bool


@dataclass(frozen=True)
class Package:
    """One proto package: its name, its group-version ("" where it serves no kinds), its table."""

    name: str
    api_version: str
    table: Table


def read_package(proto: Path) -> Package:
    """The package whose generated.proto this is, with what its Go files say."""
    text = proto.read_text()
    match = _PACKAGE.search(text)
    if match is None:
        raise ValueError(f"{proto} names no package")
    sources = [
        path.read_text()
        for path in sorted(proto.parent.glob("*.go"))
        if not path.name.endswith("_test.go") and not path.name.startswith("zz_generated")
    ]
    fields = _go_fields(sources)
    lists = {name for source in sources for name in _LIST_TYPE.findall(source)}
    table = {
        name: _message(body, match[1], fields.get(name, {}), is_list=name in lists)
        for name, body in _MESSAGE.findall(text)
    }
    return Package(match[1], _api_version(proto.parent, sources), table)


def _api_version(directory: Path, sources: list[str]) -> str:
    for source in sources:
        found = _GROUP.search(source)
        if found is not None:
            return f"{found[1]}/{directory.name}" if found[1] else directory.name
    return ""


def _go_fields(sources: list[str]) -> dict[str, dict[str, GoField]]:
    found: dict[str, dict[str, GoField]] = {}
    for source in sources:
        for name, body in _STRUCT.findall(source):
            for match in _TAGGED.finditer(body):
                tags = dict(_TAG.findall(match["tags"]))
                if "protobuf" in tags and "json" in tags:
                    number = tags["protobuf"].split(",")[1]
                    found.setdefault(name, {})[number] = _go_field(match["left"], tags["json"])
    return found


def _go_field(left: str, tag: str) -> GoField:
    name, *options = tag.split(",")
    kind = left.rsplit(maxsplit=1)[-1]
    return GoField(name, kind.startswith("*"), "omitempty" in options, "omitzero" in options)


def _message(body: str, package: str, fields: dict[str, GoField], *, is_list: bool) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for match in _FIELD.finditer(body):
        go = fields.get(match["number"])
        kind = _qualified(match["type"] or match["value"], package)
        name = match["name"] if go is None else go.json
        if match["key"]:
            if match["key"] != "string":
                raise ValueError(f"{package}.{name}: a map whose keys are {match['key']}")
            held = "m"
        elif match["label"] == "repeated":
            held = "l" if is_list else "r"
        elif go is None:
            held = ""
        else:
            held = _held(go, scalar=kind in _SCALARS)
        table[match["number"]] = [name, kind, held]
    return table


def _held(go: GoField, *, scalar: bool) -> str:
    if not go.json:
        return "i"
    if scalar:
        return "k" if go.pointer or not go.omitempty else ""
    return "z" if go.omitzero and not go.pointer else ""


def _qualified(kind: str, package: str) -> str:
    if kind in _SCALARS or kind.startswith("."):
        return kind
    if "." in kind:
        raise ValueError(f"{kind} is relative to something else than {package}")
    return f".{package}.{kind}"
