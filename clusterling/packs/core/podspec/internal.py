"""Values as kube-apiserver prints them: of its internal types, by the names that fields have in Go.

What is absent is told too, with Go's zero value. Which fields there are, and of what kind, is compiled from upstream's
pkg/apis/core/types.go (tools/internal_types.py), and read when the first message needs it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from clusterling.machinery.errors import GoList, GoStruct
from clusterling.machinery.meta import Object
from clusterling.packs import builtin

CONTEXT_LINES: Final = 3
# Beyond these the smallest difference is not looked for: that takes the square of a tenant's lines.
COMPARED_LINES_MAX: Final = 5000
CHANGED_LINES_MAX: Final = 500
DIFFERENCE_CHARACTERS_MAX: Final = 64 * 1024

_ZERO: Final[dict[str, Any]] = {"s": "", "b": False, "i": 0, "Quantity": "0", "IntOrString": 0}
_META: Final = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
    "managedFields",
)  # fmt: skip
_POINTERS: Final = ("deletionTimestamp", "deletionGracePeriodSeconds")


@cache
def _types() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = builtin.read("internal.zlib")
    return found


def as_internal(kind: str, value: Any) -> Any:
    """A value of the API as Go prints it. `kind` is a struct's name, `[]PodSpec` a list of them."""
    if kind.startswith("*"):
        return None if value is None else as_internal(kind[1:], value)
    if kind.startswith("[]"):
        return None if value is None else GoList(as_internal(kind[2:], one) for one in value)
    if kind.startswith("{}"):
        shown = {key: as_internal(kind[2:], value[key]) for key in sorted(value or ())}
        return None if value is None else GoStruct(shown)
    if kind in _types():
        return _struct(kind, value or {})
    if kind == "LabelSelector":
        # Of another package: it has JSON names, and leaves out what is empty.
        given = value or {}
        selector: Object = {"matchLabels": dict(sorted((given.get("matchLabels") or {}).items()))}
        selector["matchExpressions"] = [_requirement(one) for one in given.get("matchExpressions") or ()]
        return GoStruct({field: one for field, one in selector.items() if one})
    return _ZERO.get(kind) if value is None else value


def _requirement(one: Object) -> Object:
    """A LabelSelectorRequirement, of which no more than the values may be left out."""
    values = {"values": one["values"]} if one.get("values") else {}
    return {"key": one.get("key") or "", "operator": one.get("operator") or "", **values}


def fields_set(kind: str, value: Object) -> Iterator[str]:
    """The fields of a struct that are not Go's zero value, as its messages name them: `livenessProbe`, `uID`."""
    for name, field, of in _types()[kind]:
        if of == "ObjectMeta":
            yield from metadata_set(value.get(field) or {})
        elif as_internal(of, value.get(field)) != as_internal(of, None):
            yield name[0].lower() + name[1:]


def metadata_set(metadata: Object) -> Iterator[str]:
    """The same of a metadata block."""
    for field in _META:
        if metadata.get(field) or (field in _POINTERS and metadata.get(field) is not None):
            yield "uID" if field == "uid" else field


def _struct(kind: str, value: Object) -> GoStruct:
    shown = GoStruct()
    for name, field, of in _types()[kind]:
        given = value.get(field)
        if of == "ObjectMeta":
            shown.update({one: given[one] for one in _META if given and given.get(one)})
        else:
            shown[name] = as_internal(of, given)
    return shown


def difference(kind: str, old: Any, new: Any) -> str:
    """What `k8s.io/apimachinery/pkg/util/diff` says of two values: a unified diff of both, indented."""
    before, after = (
        f"{json.dumps(as_internal(kind, one), indent=1, ensure_ascii=False)}".split("\n")
        for one in (old, new)
    )
    shorter = min(len(before), len(after))
    first = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    most = shorter - first
    last = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    longest = max(len(before), len(after))
    if longest <= COMPARED_LINES_MAX and longest - first - last <= CHANGED_LINES_MAX:
        found = difflib.unified_diff(before, after, n=CONTEXT_LINES, lineterm="")
        # The two lines that would name files.
        lines = list(found)[2:]
    else:
        lines = _one_hunk(before, after, first, last)
    return ("\n".join(lines) + "\n")[:DIFFERENCE_CHARACTERS_MAX]


def _one_hunk(before: list[str], after: list[str], first: int, last: int) -> list[str]:
    start = max(first - CONTEXT_LINES, 0)
    gone, come = before[first : len(before) - last], after[first : len(after) - last]
    tail = before[len(before) - last :][:CONTEXT_LINES]
    kept = first - start + len(tail)
    return [
        f"@@ -{start + 1},{kept + len(gone)} +{start + 1},{kept + len(come)} @@",
        *(f" {line}" for line in before[start:first]),
        *(f"-{line}" for line in gone[:CHANGED_LINES_MAX]),
        *(f"+{line}" for line in come[:CHANGED_LINES_MAX]),
        *(f" {line}" for line in tail),
    ]


def same(one: object, other: object) -> bool:
    """Whether two parts say the same: what is empty is as good as absent (Go's Semantic.DeepEqual)."""
    return _told(one) == _told(other)


def _told(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: _told(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, "", {}, [])} or None
    if isinstance(value, list):
        return [_told(inner) for inner in value] or None
    return value
