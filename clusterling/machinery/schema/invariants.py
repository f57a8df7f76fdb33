"""What a schema demands beyond OpenAPI: objects embedded in objects, and lists that are sets or maps.

Upstream: apiextensions-apiserver `pkg/apiserver/schema/objectmeta` and `…/listtype`. Both concern few places of few
schemas, so walkers are made only along the paths that lead to such a place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from clusterling.machinery import names
from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    invalid_value,
    required,
    too_long,
)
from clusterling.machinery.meta import GroupVersion
from clusterling.machinery.schema.explaining import distinct
from clusterling.machinery.schema.node import Node

Found = TypeVar("Found")
# Takes a value and its path, and adds what it finds.
Walk = Callable[[object, str, list[Found]], None]
# What happens at a marked place.
Visit = Callable[[Node, object, str, list[Found]], None]

_ANNOTATION_BYTES_MAX: Final = 256 * 1024


def compile_walk(
    node: Node, key: str, marked: Callable[[Node], bool], visit: Visit[Found]
) -> Walk[Found] | None:
    """A walker to all places below `node` that are `marked`; None where there are none."""
    if key in node.compiled:
        known: Walk[Found] | None = node.compiled[key]
        return known

    def later(value: object, path: str, found: list[Found]) -> None:
        run: Walk[Found] | None = node.compiled[key]
        if run is not None:
            run(value, path, found)

    # A definition that recurs is walked, so that nothing marked further down is missed.
    node.compiled[key] = later
    children = {}
    for name, child in node.properties.items():
        below = compile_walk(child, key, marked, visit)
        if below is not None:
            children[name] = below
    beyond = None if node.additional is None else compile_walk(node.additional, key, marked, visit)
    walk_item = None if node.items is None else compile_walk(node.items, key, marked, visit)
    here = marked(node)
    if not here and not children and beyond is None and walk_item is None:
        node.compiled[key] = None
        return None
    known_names = node.properties

    def walk(value: object, path: str, found: list[Found]) -> None:
        if here:
            visit(node, value, path, found)
        if type(value) is dict:
            for name, item in value.items():
                if name in known_names:
                    below = children.get(name)
                    if below is not None:
                        below(item, f"{path}.{name}" if path else name, found)
                elif beyond is not None:
                    beyond(item, f"{path}[{name}]", found)
        elif walk_item is not None and type(value) is list:
            for at, item in enumerate(value):
                walk_item(item, f"{path}[{at}]", found)

    node.compiled[key] = walk
    return walk


def compile_lists(node: Node) -> Walk[FieldError] | None:
    return compile_walk(node, "lists", lambda one: one.list_type in ("set", "map"), _visit_list)


def compile_embedded(node: Node) -> Walk[FieldError] | None:
    return compile_walk(node, "embedded", lambda one: one.embedded, _visit_embedded)


def _visit_list(node: Node, value: object, path: str, errors: list[FieldError]) -> None:
    if type(value) is not list or _certainly_unique(node, value):
        return
    if node.list_type == "set":
        errors.extend(duplicate(f"{path}[{at}]", value[at]) for at in _repeated(value))
        return
    for at, item in enumerate(value):
        if item is not None and type(item) is not dict:
            text = "must be an object for an array of list-type map"
            errors.append(invalid_value(f"{path}[{at}]", item, text))
            return
    keys: list[object] = [
        {name: item[name] for name in node.map_keys if name in item} if item is not None else {}
        for item in value
    ]
    errors.extend(duplicate(f"{path}[{at}]", keys[at]) for at in _repeated(keys))


def _certainly_unique(node: Node, value: list[object]) -> bool:
    """True only if nothing is wrong with the list. Python holds more values for equal than Go, never fewer."""
    try:
        if node.list_type == "set":
            return len(set(value)) == len(value)
        if len(node.map_keys) == 1:
            name = node.map_keys[0]
            keys: set[object] = {item.get(name) for item in value}  # type: ignore[attr-defined]
        else:
            keys = {tuple(map(item.get, node.map_keys)) for item in value}  # type: ignore[attr-defined]
    except (TypeError, AttributeError):
        return False
    return len(keys) == len(value)


def _repeated(values: list[object]) -> list[int]:
    """Where a value appears for the second time; further repetitions are not told (validateListSet)."""
    seen: dict[tuple[str, object], int] = {}
    repeated = []
    for at, value in enumerate(values):
        key = distinct(value)
        times = seen[key] = seen.get(key, 0) + 1
        if times == 2:
            repeated.append(at)
    return repeated


def _visit_embedded(_: Node, value: object, path: str, errors: list[FieldError]) -> None:
    """Type and metadata of an embedded object (objectmeta/validation.go)."""
    if type(value) is not dict:
        return
    under = f"{path}." if path else ""
    errors.extend(required(f"{under}{name}") for name in ("apiVersion", "kind") if name not in value)
    if "apiVersion" in value:
        errors.extend(_type_problems(f"{under}apiVersion", value["apiVersion"], _group_version_problem))
    if "kind" in value:
        errors.extend(_type_problems(f"{under}kind", value["kind"], _kind_problem))
    if "metadata" in value:
        errors.extend(validate_metadata(value["metadata"], f"{under}metadata"))


def _type_problems(path: str, value: object, problem: Callable[[str], str]) -> list[FieldError]:
    if type(value) is not str:
        text = "must be a string"
    elif not value:
        text = "must not be empty"
    else:
        text = problem(value)
    return [invalid_value(path, value, text)] if text else []


def _group_version_problem(value: str) -> str:
    try:
        GroupVersion.parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _kind_problem(value: str) -> str:
    problems = names.is_dns1035_label(value.lower())
    return f"may have mixed case, but should otherwise match: {','.join(problems)}" if problems else ""


# The fields of metav1.ObjectMeta with the JSON type each has in Go.
_METADATA_TYPES: Final[dict[str, type]] = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": dict,
    "annotations": dict,
    "ownerReferences": list,
    "finalizers": list,
    "managedFields": list,
}
_OWNER_FIELDS: Final = frozenset({"apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"})
_MANAGER_FIELDS: Final = frozenset(
    {"manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"}
)
_GO_TYPES: Final = {
    str: "string",
    int: "int64",
    dict: "map[string]string",
    list: "[]string",
}
_JSON_WORDS: Final = {
    str: "string",
    int: "number",
    float: "number",
    bool: "bool",
    dict: "object",
    list: "array",
}


def prune_metadata(metadata: object, path: str) -> list[str]:
    """Brings an embedded ObjectMeta into the form that Go's struct has: unknown and empty fields go.

    Returns the paths of unknown fields. Values of a wrong type stay: `validate_metadata` tells of them.
    """
    if type(metadata) is not dict or _malformed(metadata):
        return []
    unknown = [f"{path}.{name}" for name in metadata if name not in _METADATA_TYPES]
    for name in list(metadata):
        if name not in _METADATA_TYPES or not metadata[name]:
            del metadata[name]
    for name, fields in (("ownerReferences", _OWNER_FIELDS), ("managedFields", _MANAGER_FIELDS)):
        for at, item in enumerate(metadata.get(name, ())):
            strangers = [one for one in item if one not in fields]
            unknown.extend(f"{path}.{name}[{at}].{one}" for one in strangers)
            for one in strangers:
                del item[one]
    return unknown


def _malformed(metadata: dict[str, object]) -> str:
    """What Go's decoder would say of the first field whose type is wrong, or nothing."""
    for name, wanted in _METADATA_TYPES.items():
        value = metadata.get(name)
        if value is None:
            continue
        problem = _mismatch(value, wanted, f"ObjectMeta.{name}", _GO_TYPES[wanted])
        if not problem and wanted is dict and isinstance(value, dict):
            problem = _first_mismatch(value.values(), str, f"ObjectMeta.{name}", "string")
        elif not problem and isinstance(value, list):
            inner = str if name == "finalizers" else dict
            go_type = {"finalizers": "string", "ownerReferences": "v1.OwnerReference"}.get(
                name, "v1.ManagedFieldsEntry"
            )
            problem = _first_mismatch(value, inner, f"ObjectMeta.{name}", go_type)
        if problem:
            return problem
    return ""


def _first_mismatch(values: object, wanted: type, where: str, go_type: str) -> str:
    assert hasattr(values, "__iter__"), "a list, or the values of a map"
    for value in values:
        problem = "" if value is None else _mismatch(value, wanted, where, go_type)
        if problem:
            return problem
    return ""


def _mismatch(value: object, wanted: type, where: str, go_type: str) -> str:
    if type(value) is wanted:
        return ""
    word = _JSON_WORDS.get(type(value), "value")
    return f"json: cannot unmarshal {word} into Go struct field {where} of type {go_type}"


def validate_metadata(metadata: object, path: str) -> list[FieldError]:
    """An embedded ObjectMeta (apimachinery: ValidateObjectMeta, names being path segments; a name is not required)."""
    if metadata is None:
        return []
    if type(metadata) is not dict:
        word = _JSON_WORDS.get(type(metadata), "value")
        text = f"json: cannot unmarshal {word} into Go value of type v1.ObjectMeta"
        return [invalid_value(path, metadata, text)]
    malformed = _malformed(metadata)
    if malformed:
        return [invalid_value(path, metadata, malformed)]
    errors: list[FieldError] = []
    for name, problems in (
        ("generateName", names.is_path_segment_prefix),
        ("name", names.is_path_segment_name),
        ("namespace", names.is_dns1123_label),
    ):
        value = metadata.get(name)
        if value:
            errors.extend(invalid_value(f"{path}.{name}", value, text) for text in problems(value))
    generation = metadata.get("generation") or 0
    if generation < 0:
        text = "must be greater than or equal to 0"
        errors.append(invalid_value(f"{path}.generation", generation, text))
    errors.extend(_label_errors(metadata.get("labels") or {}, f"{path}.labels"))
    errors.extend(_annotation_errors(metadata.get("annotations") or {}, f"{path}.annotations"))
    errors.extend(_owner_errors(metadata.get("ownerReferences") or [], f"{path}.ownerReferences"))
    errors.extend(_finalizer_errors(metadata.get("finalizers") or [], f"{path}.finalizers"))
    return errors


def _label_errors(labels: dict[str, str | None], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors.extend(invalid_value(path, key, text) for text in names.is_qualified_name(key))
        errors.extend(invalid_value(path, value, text) for text in names.is_label_value(value or ""))
    return errors


def _annotation_errors(annotations: dict[str, str | None], path: str) -> list[FieldError]:
    errors = [
        invalid_value(path, key, text) for key in annotations for text in names.is_qualified_name(key.lower())
    ]
    size = sum(len(key.encode()) + len((value or "").encode()) for key, value in annotations.items())
    if size > _ANNOTATION_BYTES_MAX:
        errors.append(too_long(path, _ANNOTATION_BYTES_MAX))
    return errors


def _owner_errors(owners: list[dict[str, object] | None], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for at, one in enumerate(owners):
        owner = one or {}
        version = owner.get("apiVersion") or ""
        if version and (not isinstance(version, str) or version.count("/") > 1 or version.endswith("/")):
            text = "must be <group>/<version> or <version>"
            errors.append(invalid_value(f"{path}[{at}].apiVersion", version, text))
        errors.extend(
            required(f"{path}[{at}].{name}", "must not be empty")
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        )
        if owner.get("controller") is True:
            name = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                text = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {name}'
                )
                errors.append(invalid_value(path, owners, text))
            else:
                controller = name
    return errors


def _finalizer_errors(finalizers: list[str | None], path: str) -> list[FieldError]:
    errors = [
        invalid_value(path, one, text) for one in finalizers for text in names.is_qualified_name(one or "")
    ]
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = "finalizer foregroundDeletion and orphan cannot be both set"
        errors.append(invalid_value(path, finalizers, text))
    return errors


def compile_prune_metadata(node: Node) -> Walk[str] | None:
    """Prunes the metadata of embedded objects; finds the paths of unknown fields."""
    return compile_walk(node, "prune embedded", lambda one: one.embedded, _visit_metadata)


def _visit_metadata(_: Node, value: object, path: str, unknown: list[str]) -> None:
    if type(value) is dict and "metadata" in value:
        unknown.extend(prune_metadata(value["metadata"], f"{path}.metadata" if path else "metadata"))
