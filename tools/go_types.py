"""types.go of the published types → what their schemas do not say, and Go's encoder and decoder act by.

Facts alone, by struct; what is as the schema says is left out:

    {"PodSpec": {"types": {"dnsPolicy": "v1.DNSPolicy", …}, "omits": ["nodeName", …], "always": {"containers": null}}, …}

`types` are the named types of fields that are text, as the decoder's messages name them; `inside`, the embedded struct that
a field belongs to; `omits`, the fields that are not written where they hold nothing; `always`, those that are, with what is
written where they were not given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from tools.markers import _FIELD, _JSON, _TYPE

Facts = dict[str, Any]

_NAMED: Final = re.compile(r"^type (\w+) (?:=\s*)?([\w.\[\]*]+)$", re.MULTILINE)
_BASIC: Final = {
    "string": "",
    "bool": False,
    "int": 0,
    "int32": 0,
    "int64": 0,
    "uint32": 0,
    "uint64": 0,
    "float64": 0,
}
_ZERO: Final = {"Quantity": "0", "IntOrString": 0, "Time": None, "MicroTime": None, "RawExtension": None}

# Texts of core/v1 that other packages have fields of, by the names that they import it under.
_FOREIGN: Final = frozenset(
    f"{alias}.{name}"
    for alias in ("v1", "api", "core", "corev1")
    for name in ("ConditionStatus", "ResourceName", "PodConditionType", "NodeSelectorOperator", "Protocol")
)


def read_go_types(api: Path, apimachinery: Path) -> dict[str, dict[str, Facts]]:
    """By package as definitions name it (`io.k8s.api.core.v1`), of the directories of k8s.io/api and k8s.io/apimachinery."""
    found = {}
    directories = {path.parent: api for path in sorted(api.glob("*/*/types.go"))}
    directories[apimachinery / "pkg/apis/meta/v1"] = apimachinery
    for directory, module in directories.items():
        package = _Package(directory)
        table = {name: facts for name in sorted(package.structs) if (facts := package.facts(name))}
        name = str(directory.relative_to(module)).replace("/", ".")
        found[f"io.k8s.{module.name.partition('@')[0]}.{name}"] = table
    return found


class _Package:
    """The types of one directory."""

    def __init__(self, directory: Path) -> None:
        self._name = directory.name
        texts = [
            path.read_text()
            for path in sorted(directory.glob("*.go"))
            if not path.name.startswith(("zz_", "generated")) and not path.name.endswith("_test.go")
        ]
        self._named: dict[str, str] = {name: kind for text in texts for name, kind in _NAMED.findall(text)}
        self.structs: dict[str, str] = {
            one["name"]: one["body"] for text in texts for one in _TYPE.finditer(text) if one["body"]
        }

    def facts(self, struct: str) -> Facts:
        facts: Facts = {"types": {}, "inside": {}, "omits": [], "always": {}}
        self._read(struct, "", facts)
        return {key: value for key, value in facts.items() if value}

    def _read(self, struct: str, inside: str, facts: Facts) -> None:
        for field in _FIELD.finditer(self.structs[struct]):
            tag = _JSON.search(field["tags"])
            kind: str = field["type"]
            if tag is None:
                continue
            name, omits = tag[1], "omit" in tag[2]
            if not name:
                bare = kind.lstrip("*")
                if bare in self.structs:
                    self._read(bare, bare, facts)
                continue
            if inside:
                facts["inside"][name] = inside
            told = self._told(kind)
            if told:
                facts["types"][name] = told
            resolved = self._resolved(kind)
            if omits and (resolved in _BASIC or resolved.startswith(("[]", "map["))):
                facts["omits"].append(name)
            elif "omitzero" in tag[2] or (omits and resolved.startswith("*")):
                continue
            else:
                facts["always"][name] = self._zero(resolved)

    def _resolved(self, kind: str) -> str:
        if kind == "types.UID" or kind in _FOREIGN:
            return "string"
        return self._resolved(self._named[kind]) if kind in self._named else kind

    def _told(self, kind: str) -> str:
        """The named type of a text or of a list of texts."""
        bare = kind.lstrip("*").removeprefix("[]").lstrip("*")
        if bare == "types.UID":
            return bare
        if bare in _FOREIGN:
            return f"v1.{bare.rpartition('.')[2]}"
        is_text = bare in self._named and self._resolved(bare) == "string"
        return f"{self._name}.{bare}" if is_text else ""

    def _zero(self, resolved: str) -> object:
        if resolved in _BASIC:
            return _BASIC[resolved]
        if resolved.startswith(("*", "[]", "map[")):
            return None
        return _ZERO.get(resolved.rpartition(".")[2], {})
