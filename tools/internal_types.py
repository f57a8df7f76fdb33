"""types.go of the internal types → how Go prints them: the order, the names and the kinds of their fields.

Error messages show values of the types that kube-apiserver works with inside, and those have no JSON names. Facts alone:

    {"Toleration": [["Key", "key", "s"], …, ["TolerationSeconds", "tolerationSeconds", "*i"]], …}

is, of each field, its name in Go, its name in the API, and its kind: `s` text, `b` bool, `i` integer, the name of a struct, or
`*` a pointer to, `[]` a list of, `{}` a map of one. A metadata block is `["", "metadata", "ObjectMeta"]`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

Field = tuple[str, str, str]
Types = dict[str, list[Field]]

# What messages show, by group: it and whatever it holds.
_ROOTS: Final = {
    "core": ("PodSpec", "PodTemplateSpec", "PersistentVolumeClaim"),
    "apps": ("DaemonSetUpdateStrategy", "DeploymentStrategy", "StatefulSetUpdateStrategy"),
    "batch": ("JobSpec", "JobStatus"),
}

_STRUCT: Final = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_NAMED: Final = re.compile(r"^type (\w+) (?!struct|interface)(\S+)$", re.MULTILINE)
_FIELD: Final = re.compile(
    r"^\t(?:(\w+)[ \t]+)?([\w.*\[\]]+)(?:[ \t]+`([^`\n]*)`)?[ \t]*(?://.*)?$", re.MULTILINE
)
_JSON: Final = re.compile(r'json:"([^",]*)')
_BASIC: Final = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "int": "i", "UID": "s"}
_META: Final = "ObjectMeta"


class _Source:
    """One types.go."""

    def __init__(self, text: str) -> None:
        self.structs = dict(_STRUCT.findall(text))
        self.named = dict(_NAMED.findall(text))

    def fields(self, struct: str) -> list[tuple[str, str, str]]:
        """(Go name, type, tag) of each; those of an embedded struct are the struct's own."""
        found = []
        for name, kind, tag in _FIELD.findall(self.structs[struct]):
            bare = kind.rpartition(".")[2]
            if name:
                found.append((name, kind, tag))
            elif bare == _META:
                found.append(("", _META, tag))
            elif bare in self.structs:
                found += self.fields(bare)
        return found

    def kind(self, text: str) -> str:
        """The short form of a Go type."""
        for start, mark in (("*", "*"), ("[]", "[]")):
            if text.startswith(start):
                return mark + self.kind(text.removeprefix(start))
        if text.startswith("map["):
            return "{}" + self.kind(text.partition("]")[2])
        bare = text.rpartition(".")[2]
        if bare in _BASIC:
            return _BASIC[bare]
        return self.kind(self.named[bare]) if bare in self.named else bare


def read_internal_types(module: Path, api: Path) -> Types:
    """Of the directories of k8s.io/kubernetes and k8s.io/api."""
    found: Types = {}
    for group, roots in _ROOTS.items():
        inside = _Source((module / f"pkg/apis/{group}/types.go").read_text())
        outside = _Source((api / f"{group}/v1/types.go").read_text())
        found |= _of_group(inside, outside, roots)
    return found


def _of_group(inside: _Source, outside: _Source, roots: tuple[str, ...]) -> Types:
    found: Types = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name not in inside.structs:
            continue
        tags = {go.lower(): tag for go, _, tag in outside.fields(name)}
        found[name] = [
            (go, _json_name(tags[go.lower()]) if go else "metadata", inside.kind(kind))
            for go, kind, _ in inside.fields(name)
        ]
        waiting += [kind.lstrip("*[]{}") for _, _, kind in found[name]]
    return found


def _json_name(tag: str) -> str:
    """Every field of a published type has one."""
    names: list[str] = _JSON.findall(tag)
    return names[0]
