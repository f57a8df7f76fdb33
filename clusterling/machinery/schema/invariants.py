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
    path_below,
    required,
)
from clusterling.machinery.meta import GroupVersion
from clusterling.machinery.objectmeta import coerce_object_meta, validate_object_meta
from clusterling.machinery.schema.explaining import distinct
from clusterling.machinery.schema.node import Node

FOUND_MAX: Final = 1_000  # As of other errors: nobody reads more.

Found = TypeVar("Found")
# Takes a value and its path, and adds what it finds.
Walk = Callable[[object, str, list[Found]], None]
# What happens at a marked place.
Visit = Callable[[Node, object, str, list[Found]], None]


def compile_walk(
    node: Node, key: str, marked: Callable[[Node], bool], visit: Visit[Found]
) -> Walk[Found] | None:
    """A walker to all places below `node` that are `marked`; None where there are none."""
    if node.is_leaf and not marked(node):
        return None

    def later(value: object, path: str, found: list[Found]) -> None:
        run: Walk[Found] | None = node.compiled[key]
        if run is not None:
            run(value, path, found)

    def make() -> Walk[Found] | None:
        return _walk_of(node, key, marked, visit)

    # A definition that recurs is walked, so that nothing marked further down is missed.
    return node.derived(key, make, later)


def _walk_of(node: Node, key: str, marked: Callable[[Node], bool], visit: Visit[Found]) -> Walk[Found] | None:
    children = {}
    for name, child in node.properties.items():
        below = compile_walk(child, key, marked, visit)
        if below is not None:
            children[name] = below
    beyond = None if node.additional is None else compile_walk(node.additional, key, marked, visit)
    walk_item = None if node.items is None else compile_walk(node.items, key, marked, visit)
    here = marked(node)
    if not here and not children and beyond is None and walk_item is None:
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
                        below(item, path_below(path, f".{name}") if path else name, found)
                elif beyond is not None:
                    beyond(item, path_below(path, f"[{name}]"), found)
        elif walk_item is not None and type(value) is list:
            for at, item in enumerate(value):
                walk_item(item, path_below(path, f"[{at}]"), found)

    return walk


def compile_lists(node: Node) -> Walk[FieldError] | None:
    return compile_walk(node, "lists", lambda one: one.list_type in ("set", "map"), _visit_list)


def compile_embedded(node: Node) -> Walk[FieldError] | None:
    return compile_walk(node, "embedded", lambda one: one.embedded, _visit_embedded)


def compile_metadata(node: Node) -> Walk[FieldError] | None:
    return compile_walk(node, "metadata of embedded objects", lambda one: one.embedded, _visit_unreadable)


def _visit_list(node: Node, value: object, path: str, errors: list[FieldError]) -> None:
    if type(value) is not list or len(errors) >= FOUND_MAX or _certainly_unique(node, value):
        return
    if node.list_type == "set":
        errors.extend(duplicate(f"{path}[{at}]", value[at]) for at in _repeated(value)[:FOUND_MAX])
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
    errors.extend(duplicate(f"{path}[{at}]", keys[at]) for at in _repeated(keys)[:FOUND_MAX])


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
    if type(value) is not dict or len(errors) >= FOUND_MAX:
        return
    under = f"{path}." if path else ""
    errors.extend(required(f"{under}{name}") for name in ("apiVersion", "kind") if name not in value)
    if "apiVersion" in value:
        errors.extend(_type_problems(f"{under}apiVersion", value["apiVersion"], _group_version_problem))
    if "kind" in value:
        errors.extend(_type_problems(f"{under}kind", value["kind"], _kind_problem))
    if "metadata" in value:
        errors.extend(validate_metadata(value["metadata"], f"{under}metadata"))


def _visit_unreadable(_: Node, value: object, path: str, errors: list[FieldError]) -> None:
    """Whether an embedded object's metadata can be read at all (objectmeta/coerce.go)."""
    if type(value) is dict and "metadata" in value and len(errors) < FOUND_MAX:
        try:
            coerce_object_meta(value["metadata"])
        except ValueError as error:
            under = f"{path}." if path else ""
            errors.append(invalid_value(f"{under}metadata", value["metadata"], str(error)))


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


def prune_metadata(metadata: object, path: str) -> list[str]:
    """Brings an embedded ObjectMeta, in place, into the form that Go's struct has: unknown and empty fields go.

    Returns the paths of unknown fields. What is of a wrong type stays as it is: `validate_metadata` tells of it.
    """
    if type(metadata) is not dict:
        return []
    try:
        kept, unknown = coerce_object_meta(metadata)
    except ValueError:
        return []
    if kept != metadata:
        metadata.clear()
        metadata.update(kept)
    return [path + one.removeprefix("metadata") for one in unknown[:FOUND_MAX]]


def validate_metadata(metadata: object, path: str) -> list[FieldError]:
    """An embedded ObjectMeta; names are path segments, and a name is not required (objectmeta/validation.go)."""
    try:
        kept, _ = coerce_object_meta(metadata)
    except ValueError as error:
        return [invalid_value(path, metadata, str(error))]
    named = {"name": "fakename", **kept}
    return validate_object_meta(
        named, namespaced="namespace" in kept, name_problems=names.is_path_segment_name, path=path
    )


def compile_prune_metadata(node: Node) -> Walk[str] | None:
    """Prunes the metadata of embedded objects; finds the paths of unknown fields."""
    return compile_walk(node, "prune embedded", lambda one: one.embedded, _visit_metadata)


def _visit_metadata(_: Node, value: object, path: str, unknown: list[str]) -> None:
    if type(value) is dict and "metadata" in value:
        gone = prune_metadata(value["metadata"], f"{path}.metadata" if path else "metadata")
        if len(unknown) < FOUND_MAX:
            unknown.extend(gone)
