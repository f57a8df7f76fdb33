"""What a CRD's schema must be: structural, within upstream's rules, and no larger than we carry.

Two sets of rules, both upstream's: a schema is *structural* when every value it validates has a known type
(apiextensions-apiserver `pkg/apiserver/schema/{validation,complete,convert}.go`), and it keeps to a subset of
OpenAPI v3 (`pkg/apis/apiextensions/validation/validation.go`, the walk over the schema). Defaults are held against
the schema they stand in (`pkg/apiserver/schema/defaulting/validation.go`).

Upstream collects errors in the order of Go's maps, which is none; here it is the schema's own order, and the
structural ones are sorted by their text as there. CEL rules are checked for form only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    path_below,
    required,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.schema.budget import (
    PatternsTooCostly,
    TooCostly,
    refill,
    refill_patterns,
    spend_pattern,
)
from clusterling.machinery.schema.explaining import explain
from clusterling.machinery.schema.formats import PatternError, compile_pattern, format_is_known
from clusterling.machinery.schema.invariants import compile_embedded
from clusterling.machinery.schema.node import META_FIELDS, Node
from clusterling.machinery.schema.shaping import Unknown, compile_prune, json_copy

# Ours, not upstream's: every level costs a walker some frames of Python's stack, every node memory in each process.
LEVELS_MAX: Final = 64
NODES_MAX: Final = 50_000

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_RULE_REASONS: Final = (
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
)
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]


@dataclass(frozen=True, slots=True)
class Leniency:
    """Rules that an update need not keep because the stored CRD already breaks them (upstream: validationOptions)."""

    structural: bool = False
    property_types: bool = False
    unpruned_defaults: bool = False
    set_items: bool = False
    map_keys: bool = False


STRICT: Final = Leniency()


def validate_schema(schema: Object, path: str, leniency: Leniency = STRICT) -> list[FieldError]:
    """Everything wrong with one version's `openAPIV3Schema`."""
    unreadable = _malformed(schema, path) or _complexity(schema, path)
    if unreadable:
        return unreadable
    refill_patterns()
    try:
        return _schema_errors(schema, path, leniency)
    except PatternsTooCostly:
        return [forbidden_field(path, "its patterns are too many or too large")]
    except TooCostly:
        return [forbidden_field(path, "its defaults are too costly to be validated by so many branches")]


def _schema_errors(schema: Object, path: str, leniency: Leniency) -> list[FieldError]:
    errors: list[FieldError] = []
    unconverted = ""
    if not leniency.structural:
        unconverted = _not_convertible(schema)
        if not unconverted:
            errors += structural_errors(schema, path) or default_errors(
                schema, path, allow_unpruned=leniency.unpruned_defaults
            )
    errors += _OpenApi(leniency).errors(schema, path, _Place())
    if unconverted and not errors:
        # It overlaps with the rules of OpenAPI, so it is told only where those find nothing.
        errors.append(invalid_value(path, "", unconverted))
    return errors


def children(schema: Object) -> Iterator[Object]:
    """The schemas directly below this one, in every position a schema can have."""
    return (below for below in _below(schema) if isinstance(below, dict))


def _below(schema: Object) -> Iterator[object]:
    for keyword in ("properties", "patternProperties", "definitions"):
        below = schema.get(keyword) or {}
        yield from below.values() if isinstance(below, dict) else (below,)
    for keyword in ("items", "allOf", "anyOf", "oneOf"):
        below = schema.get(keyword)
        if isinstance(below, list):
            yield from below
        elif isinstance(below, dict):
            yield below
    for keyword in ("additionalProperties", "additionalItems", "not"):
        if isinstance(schema.get(keyword), dict):
            yield schema[keyword]
    dependencies = schema.get("dependencies")
    if isinstance(dependencies, dict):
        yield from (one for one in dependencies.values() if isinstance(one, dict))


def drop_unreadable(schema: Object) -> None:
    """Drops, in place, an `items` that is neither a schema nor a list: upstream's decoder reads it as nothing."""

    def look(one: Object) -> bool:
        if not isinstance(one.get("items"), dict | list):
            one.pop("items", None)
        return False

    anywhere(schema, look)


def anywhere(schema: Object, holds: Callable[[Object], bool]) -> bool:
    """Whether something holds of the schema or of one below it (upstream: SchemaHas)."""
    stack = [schema]
    while stack:
        one = stack.pop()
        if holds(one):
            return True
        stack.extend(children(one))
    return False


# Below `items`, which may be a schema or a list of them, the definition's own schema does not look.
_KEYWORDS: Final = {
    **dict.fromkeys(("type", "format", "pattern", "x-kubernetes-list-type", "x-kubernetes-map-type"), str),
    **dict.fromkeys(("required", "enum", "x-kubernetes-list-map-keys", "x-kubernetes-validations"), list),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), list),
    "dependencies": dict,
    "not": dict,
}


def _malformed(schema: Object, path: str) -> list[FieldError]:
    """Schemas that are no objects. OpenAPI cannot say what they must be where they may also be something else."""
    stack = [schema]
    while stack:
        one = stack.pop()
        for keyword in ("additionalProperties", "additionalItems"):
            if not isinstance(one.get(keyword), dict | bool | None):
                return [invalid_value(path, one[keyword], "boolean or JSON schema expected")]
        if not all(isinstance(below, dict) for below in _below(one)):
            return [invalid_value(path, "", "a JSON schema must be an object")]
        for keyword, wanted in _KEYWORDS.items():
            if not isinstance(one.get(keyword), wanted | None):
                return [invalid_value(path, "", f"{keyword} of a JSON schema is of the wrong type")]
        stack.extend(children(one))
    return []


def _complexity(schema: Object, path: str) -> list[FieldError]:
    level, levels, nodes = [schema], 0, 0
    while level:
        levels += 1
        nodes += len(level)
        if levels > LEVELS_MAX:
            return [forbidden_field(path, f"must not be nested more than {LEVELS_MAX} schemas deep")]
        if nodes > NODES_MAX:
            return [forbidden_field(path, f"must not have more than {NODES_MAX} schemas")]
        level = [below for one in level for below in children(one)]
    return []


# ---------------------------------------------------------------------- structural


def structural_errors(schema: Object, path: str) -> list[FieldError]:
    """Why the schema is not structural, sorted by text."""
    found = [*_invariants(schema, "root", path), *_completeness(schema, schema, path, path)]
    return sorted(found, key=str)


def is_structural(schema: Object) -> bool:
    return not _not_convertible(schema) and not structural_errors(schema, "")


_UNSUPPORTED: Final = (
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
)


def _not_convertible(schema: Object) -> str:
    """Why it cannot even be read as a structural schema (convert.go: NewStructural), or nothing."""
    stack = [schema]
    while stack:
        one = stack.pop()
        for key, said in _UNSUPPORTED:
            if one.get(key) or (key == "additionalItems" and one.get(key) is not None):
                return f"OpenAPIV3Schema '{said}' is not supported"
        if isinstance(one.get("items"), list):
            return "OpenAPIV3Schema 'items' must be a schema, but is an array"
        if one.get("x-kubernetes-preserve-unknown-fields") is False:
            return "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
        stack.extend(children(one))
    return ""


_MISSING_TYPE: Final = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}


def _invariants(schema: Object, level: str, path: str) -> Iterator[FieldError]:
    """validateStructuralInvariants."""
    kind = schema.get("type") or ""
    items = schema.get("items")
    if kind == "array" and items is None:
        yield required(f"{path}.items", "must be specified")
    if items is not None:
        yield from _invariants(items, "item", f"{path}.items")
    for name, below in (schema.get("properties") or {}).items():
        yield from _invariants(below, "field", path_below(path, f".properties[{name}]"))
    additional = schema.get("additionalProperties")
    if additional is not None and level == "root":
        yield forbidden_field(f"{path}.additionalProperties", "must not be used at the root")
    if isinstance(additional, dict):
        yield from _invariants(additional, "field", f"{path}.additionalProperties")
    yield from _extensions(schema, path)
    yield from _value_validation(
        schema,
        path,
        skip_any_of=schema.get("anyOf") == _INT_OR_STRING,
        skip_first=_first_all_of_is_int_or_string(schema),
    )
    yield from _type_invariants(schema, level, path)
    yield from _metadata_invariants(schema, level, path)


def _first_all_of_is_int_or_string(schema: Object) -> bool:
    branches: list[Object] = schema.get("allOf") or []
    return bool(branches) and branches[0].get("anyOf") == _INT_OR_STRING


def _extensions(schema: Object, path: str) -> Iterator[FieldError]:
    if not schema.get("x-kubernetes-int-or-string"):
        return
    for key in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
        if schema.get(key):
            yield invalid_value(f"{path}.{key}", True, "must be false if x-kubernetes-int-or-string is true")


def _type_invariants(schema: Object, level: str, path: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    embedded = schema.get("x-kubernetes-embedded-resource")
    preserve = schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and kind != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid_value(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail)
    elif not kind and not schema.get("x-kubernetes-int-or-string") and not preserve:
        yield required(f"{path}.type", _MISSING_TYPE[level])
    if embedded and schema.get("additionalProperties") is not None:
        yield forbidden_field(
            f"{path}.additionalProperties", "must not be used if x-kubernetes-embedded-resource is set"
        )
    if level == "root" and kind and kind != "object":
        yield invalid_value(f"{path}.type", kind, "must be object at the root")
    if embedded and not preserve and not schema.get("properties"):
        yield required(
            f"{path}.properties",
            "must not be empty if x-kubernetes-embedded-resource is true "
            "without x-kubernetes-preserve-unknown-fields",
        )


def _metadata_invariants(schema: Object, level: str, path: str) -> Iterator[FieldError]:
    properties = schema.get("properties") or {}
    checked = level == "root" or schema.get("x-kubernetes-embedded-resource")
    for name in ("kind", "apiVersion"):
        kind = properties.get(name, {}).get("type") or ""
        if checked and name in properties and kind != "string":
            yield invalid_value(f"{path}.properties[{name}].type", kind, "must be string")
    if "metadata" not in properties:
        return
    here, metadata = f"{path}.properties[metadata]", properties["metadata"]
    kind = metadata.get("type") or ""
    if checked and kind != "object":
        yield invalid_value(f"{here}.type", kind, "must be object")
    if level == "root":
        said = {key for key, value in metadata.items() if value not in (None, False, "", [], {})}
        named = set(metadata.get("properties") or {})
        if named and named <= {"name", "generateName"}:
            said.discard("properties")
        if said - {"type", "default"}:
            yield forbidden_field(
                here,
                "must not specify anything other than name and generateName, "
                "but metadata is implicitly specified",
            )


def _value_validation(
    schema: Object, path: str, *, skip_any_of: bool = False, skip_first: bool = False
) -> Iterator[FieldError]:
    """validateValueValidation. The skips are the two forms that int-or-string may take."""
    for at, branch in enumerate(schema.get("anyOf") or ()):
        if not skip_any_of:
            yield from _nested(branch, f"{path}.anyOf[{at}]")
    for at, branch in enumerate(schema.get("allOf") or ()):
        yield from _nested(branch, f"{path}.allOf[{at}]", skip_any_of=skip_first and at == 0)
    for at, branch in enumerate(schema.get("oneOf") or ()):
        yield from _nested(branch, f"{path}.oneOf[{at}]")
    if schema.get("not") is not None:
        yield from _nested(schema["not"], f"{path}.not")
    pattern = schema.get("pattern")
    if pattern:
        try:
            spend_pattern(pattern, compile_pattern(pattern).programsize)
        except PatternError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            yield invalid_value(f"{path}.pattern", pattern, text)


_FORBIDDEN_IN_BRANCHES: Final = (
    ("type", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)
# Set at all, even to a zero value, is too much for these.
_POINTERS: Final = frozenset({"default", "x-kubernetes-list-type", "x-kubernetes-map-type"})


def _nested(schema: Object, path: str, *, skip_any_of: bool = False) -> Iterator[FieldError]:
    """validateNestedValueValidation: a branch of a combination only narrows what is defined outside of it."""
    yield from _value_validation(schema, path, skip_any_of=skip_any_of)
    if schema.get("items") is not None:
        yield from _nested(schema["items"], f"{path}.items")
    for name, below in (schema.get("properties") or {}).items():
        yield from _nested(below, path_below(path, f".properties[{name}]"))
    if schema.get("additionalProperties") not in (None, False):
        yield forbidden_field(f"{path}.additionalProperties", "must be undefined to be structural")
    for key, detail in _FORBIDDEN_IN_BRANCHES:
        value = schema.get(key)
        if value or (key in _POINTERS and value is not None):
            yield forbidden_field(f"{path}.{key}", detail)
    if "metadata" in (schema.get("properties") or {}):
        yield forbidden_field(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _branches(schema: Object, path: str) -> Iterator[tuple[Object, str]]:
    if schema.get("not") is not None:
        yield schema["not"], f"{path}.not"
    for keyword in ("allOf", "anyOf", "oneOf"):
        for at, branch in enumerate(schema.get(keyword) or ()):
            yield branch, f"{path}.{keyword}[{at}]"


def _completeness(
    validation: Object, schema: Object | None, defined: str, validated: str
) -> Iterator[FieldError]:
    """complete.go: what a branch speaks of is defined outside of branches, at `defined`."""
    for branch, where in _branches(validation, validated):
        yield from _branch_completeness(branch, schema, defined, where)


def _branch_completeness(
    branch: Object, schema: Object | None, defined: str, validated: str
) -> Iterator[FieldError]:
    if schema is None:
        yield required(defined, f"because it is defined in {validated}")
        return
    yield from _completeness(branch, schema, defined, validated)
    if branch.get("items") is not None:
        yield from _branch_completeness(
            branch["items"], schema.get("items"), f"{defined}.items", f"{validated}.items"
        )
    known = schema.get("properties") or {}
    for name, below in (branch.get("properties") or {}).items():
        here, there = f"{defined}.properties[{name}]", f"{validated}.properties[{name}]"
        yield from _branch_completeness(below, known.get(name), here, there)


# ---------------------------------------------------------------------- defaults


def default_errors(schema: Object, path: str, *, allow_unpruned: bool = False) -> list[FieldError]:
    """Defaults that are not valid by the schema they stand in, or have fields it does not know."""
    refill()
    return list(_defaults(schema, path, _Surrounding(schema), allow_unpruned))


@dataclass(frozen=True, slots=True)
class _Surrounding:
    """The embedded object (or the whole one) that a place belongs to, and the steps from its root to the place.

    `in_metadata`: the place is within its apiVersion, kind or metadata, where only the whole can be judged.
    """

    root: Object
    steps: tuple[str | None, ...] = ()
    in_metadata: bool = False

    def below(self, step: str | None) -> _Surrounding:
        return replace(self, steps=(*self.steps, step))

    def around(self, value: object) -> Object:
        """An object with the value at this place, and nothing else but a type."""
        for step in reversed(self.steps):
            value = [value] if step is None else {step: value}
        assert isinstance(value, dict), "metadata is below the root"
        return {"apiVersion": "validation/v1", "kind": "Validation", **value}


def _defaults(schema: Object, path: str, around: _Surrounding, allow_unpruned: bool) -> Iterator[FieldError]:
    if schema.get("x-kubernetes-embedded-resource"):
        around = _Surrounding(schema)
    default = schema.get("default")
    if default is not None:
        here = f"{path}.default"
        if around.in_metadata:
            yield from _default_in_metadata(schema, default, here, around)
        else:
            yield from _default(schema, default, here, around, allow_unpruned)
    if isinstance(schema.get("items"), dict):
        yield from _defaults(schema["items"], f"{path}.items", around.below(None), allow_unpruned)
    is_root = not around.steps
    for name, below in (schema.get("properties") or {}).items():
        place = around.below(name)
        if is_root and name in META_FIELDS:
            place = replace(place, in_metadata=True)
        yield from _defaults(below, path_below(path, f".properties[{name}]"), place, allow_unpruned)


def _default(
    schema: Object, default: object, here: str, around: _Surrounding, allow_unpruned: bool
) -> Iterator[FieldError]:
    node = Node(schema) if around.steps else Node(schema).rooted()
    prune = None if allow_unpruned else compile_prune(node)
    if prune is not None and isinstance(default, dict | list):
        unknown = Unknown()
        prune(json_copy(default), None, unknown)
        if unknown:
            yield invalid_value(here, default, "must not have unknown fields")
    found: list[FieldError] = []
    embedded = compile_embedded(node)
    if embedded is not None:
        embedded(default, here, found)
    yield from found or explain(node, default, at=here)


def _default_in_metadata(
    schema: Object, default: object, here: str, around: _Surrounding
) -> Iterator[FieldError]:
    found: list[FieldError] = []
    walk = compile_embedded(Node(around.root).rooted())
    assert walk is not None, "the root is an embedded object"
    walk(around.around(json_copy(default)), "", found)
    if found:
        texts = list(dict.fromkeys(map(str, found)))
        said = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        yield invalid_value(here, default, f"must result in valid metadata: {said}")
    else:
        yield from explain(Node(schema), default, at=here)


# ---------------------------------------------------------------------- the subset of OpenAPI


@dataclass(frozen=True, slots=True)
class _Place:
    """What the position of a schema forbids. `no_defaults`: why a default may not stand here ("" it may)."""

    root: bool = True
    in_metadata: bool = False
    no_defaults: str = ""


class _OpenApi:
    """ValidateCustomResourceDefinitionOpenAPISchema."""

    def __init__(self, leniency: Leniency) -> None:
        self._leniency = leniency

    def errors(self, schema: Object, path: str, place: _Place) -> Iterator[FieldError]:
        yield from self._keywords(schema, path, place)
        below = replace(place, root=False)
        additional = schema.get("additionalProperties")
        if additional is not None:
            if schema.get("properties") and additional is not True:
                yield forbidden_field(
                    f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"
                )
            if isinstance(additional, dict):
                inner = below
                if place.in_metadata:
                    reason = "inside additionalProperties applying to object metadata"
                    inner = replace(below, no_defaults=reason)
                yield from self.errors(additional, f"{path}.additionalProperties", inner)
        yield from self._properties(schema, path, place, below)
        for branch, where in _branches(schema, path):
            yield from self.errors(branch, where, below)
        for name, one in (schema.get("definitions") or {}).items():
            yield from self.errors(one, path_below(path, f".definitions[{name}]"), below)
        items = schema.get("items")
        if isinstance(items, dict):
            yield from self.errors(items, f"{path}.items", below)
        elif isinstance(items, list):
            for at, one in enumerate(items):
                yield from self.errors(one, f"{path}.items[{at}]", below)
        for name, one in (schema.get("dependencies") or {}).items():
            if isinstance(one, dict):
                yield from self.errors(one, path_below(path, f".dependencies[{name}]"), below)
        yield from self._kubernetes(schema, path)

    def _properties(self, schema: Object, path: str, place: _Place, below: _Place) -> Iterator[FieldError]:
        for name, one in (schema.get("properties") or {}).items():
            inner = below
            if (place.root or schema.get("x-kubernetes-embedded-resource")) and name in META_FIELDS:
                inner = replace(below, in_metadata=True)
                if place.root:
                    inner = replace(inner, no_defaults=f"in top-level {name}")
            yield from self.errors(one, path_below(path, f".properties[{name}]"), inner)

    def _keywords(self, schema: Object, path: str, place: _Place) -> Iterator[FieldError]:
        """specStandardValidatorV3.validate"""
        kind = schema.get("type") or ""
        if kind and kind not in _TYPES and not self._leniency.property_types:
            yield not_supported(f"{path}.type", kind, _TYPES)
        if schema.get("default") is not None and place.no_defaults:
            yield forbidden_field(f"{path}.default", f"must not be set {place.no_defaults}")
        for key in ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"):
            value = schema.get(key)
            by_presence = key in ("additionalItems", "dependencies", "$ref")
            if value or (by_presence and value is not None):
                yield forbidden_field(f"{path}.{key}", f"{key} is not supported")
        if kind == "null":
            yield forbidden_field(
                f"{path}.type", "type cannot be set to null, use nullable as an alternative"
            )
        if isinstance(schema.get("items"), list) and schema["items"]:
            yield forbidden_field(f"{path}.items", "items must be a schema object and not an array")
        if place.in_metadata and schema.get("x-kubernetes-embedded-resource"):
            yield forbidden_field(
                f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta"
            )
        if schema.get("uniqueItems"):
            yield forbidden_field(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )

    def _kubernetes(self, schema: Object, path: str) -> Iterator[FieldError]:
        """The `x-kubernetes-…` extensions."""
        if schema.get("x-kubernetes-preserve-unknown-fields") is False:
            yield invalid_value(
                f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined"
            )
        map_type = schema.get("x-kubernetes-map-type")
        if map_type is not None:
            yield from _wants_type(schema, "object", "x-kubernetes-map-type", path)
            if map_type not in ("atomic", "granular"):
                yield not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular"))
        list_type = schema.get("x-kubernetes-list-type")
        if list_type is not None:
            if schema.get("type") != "array":
                yield from _wants_type(schema, "array", "x-kubernetes-list-type", path)
            elif list_type == "set" and not self._leniency.set_items:
                yield from set_item_errors(schema, path)
            if list_type not in ("atomic", "set", "map"):
                yield not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map"))
        yield from _map_key_errors(schema, path)
        if not self._leniency.map_keys:
            yield from key_item_errors(schema, path)
        for at, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
            yield from _rule_form(schema, rule, f"{path}.x-kubernetes-validations[{at}]")


def _wants_type(schema: Object, wanted: str, key: str, path: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if kind != wanted:
        detail = f"must be {wanted} if {key} is specified"
        yield invalid_value(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail)


def set_item_errors(schema: Object, path: str) -> Iterator[FieldError]:
    """A set's items must be atomic, or nobody could tell two of them apart while they change."""
    items = schema.get("items")
    if schema.get("x-kubernetes-list-type") != "set" or not isinstance(items, dict):
        return
    detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
    list_type = items.get("x-kubernetes-list-type")
    if items.get("type") == "array" and list_type not in (None, "atomic"):
        yield invalid_value(f"{path}.items.x-kubernetes-list-type", list_type, detail)
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield invalid_value(f"{path}.items.x-kubernetes-map-type", list_type, detail)


def _map_key_errors(schema: Object, path: str) -> Iterator[FieldError]:
    keys = schema.get("x-kubernetes-list-map-keys") or []
    list_type = schema.get("x-kubernetes-list-type")
    if keys and list_type != "map":
        detail = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        yield required(where, detail) if list_type is None else invalid_value(where, list_type, detail)
    if list_type != "map":
        return
    if not keys:
        yield required(
            f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"
        )
    items = schema.get("items")
    if items is None:
        yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
    elif not isinstance(items, dict):
        yield invalid_value(
            f"{path}.items", items, "must only have a single schema if x-kubernetes-list-type is map"
        )
    elif items.get("type") != "object":
        yield invalid_value(
            f"{path}.items.type",
            items.get("type") or "",
            "must be object if parent array's x-kubernetes-list-type is map",
        )
    else:
        yield from _each_key(keys, items, path)


def _each_key(keys: list[str], items: Object, path: str) -> Iterator[FieldError]:
    properties = items.get("properties") or {}
    where = f"{path}.x-kubernetes-list-map-keys"
    seen: set[str] = set()
    for key in keys:
        if key not in properties:
            yield invalid_value(where, keys, "entries must all be names of item properties")
        elif properties[key].get("type") in ("array", "object"):
            yield invalid_value(
                f"{path}.items.properties[{key}].type",
                items.get("type"),
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            )
        if key in seen:
            yield invalid_value(where, keys, "must not contain duplicate entries")
        seen.add(key)


def key_item_errors(schema: Object, path: str) -> Iterator[FieldError]:
    """Items of sets and maps are never null, and a map's keys always there (validateMapListKeysMapSet)."""
    items, list_type = schema.get("items"), schema.get("x-kubernetes-list-type")
    if not isinstance(items, dict) or list_type not in ("set", "map"):
        return
    if items.get("nullable"):
        yield forbidden_field(
            f"{path}.items.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}"
        )
    if list_type != "map":
        return
    properties = items.get("properties") or {}
    for key in schema.get("x-kubernetes-list-map-keys") or ():
        if key not in properties:
            continue
        where, one = f"{path}.items.properties[{key}]", properties[key]
        if key not in (items.get("required") or ()) and one.get("default") is None:
            yield required(
                f"{where}.default",
                "this property is in x-kubernetes-list-map-keys, "
                "so it must have a default or be a required property",
            )
        if one.get("nullable"):
            yield forbidden_field(
                f"{where}.nullable",
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            )


def _rule_form(schema: Object, rule: Object, path: str) -> Iterator[FieldError]:
    """A CEL rule's form; what it says is for another day."""
    text, message = rule.get("rule") or "", rule.get("message") or ""
    expression, field_path = rule.get("messageExpression") or "", rule.get("fieldPath") or ""
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid_value(f"{path}.message", message, "must be non-empty if specified")
    elif _has_newlines(message.strip()):
        yield invalid_value(f"{path}.message", message, "must not contain line breaks")
    elif _has_newlines(text.strip()) and not message.strip():
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    if expression and not expression.strip():
        yield required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    reason = rule.get("reason")
    if reason is not None and reason not in _RULE_REASONS:
        yield not_supported(f"{path}.reason", reason, _RULE_REASONS)
    if field_path and not field_path.strip():
        yield invalid_value(f"{path}.fieldPath", field_path, "must be non-empty if specified")
    if _has_newlines(field_path):
        yield invalid_value(f"{path}.fieldPath", field_path, "must not contain line breaks")
    if field_path and isinstance(field_of(schema, field_path), str):
        yield invalid_value(f"{path}.fieldPath", field_path, "must be a valid path")


def _has_newlines(text: str) -> bool:
    return "\n" in text or "\r" in text


# ---------------------------------------------------------------------- paths and formats


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a path leads to: the names on the way, and the schema there (None below `additionalProperties: true`)."""

    names: tuple[str, ...]
    schema: Object | None


def field_of(schema: Object, path: str, *, allow_brackets: bool = True) -> Field | str:
    """The field at a path such as `.spec.color` or `.spec['a.b']`, or what is wrong with the path.

    Upstream: pkg/apiserver/schema/cel/validation.go, ValidFieldPath.
    """
    tokens = _path_tokens(path)
    names: list[str] = []
    here: Object | None = schema
    while tokens:
        token = tokens.pop(0)
        if token == "[":  # noqa: S105 (a bracket)
            if not allow_brackets:
                return "array notation is not allowed"
            name = _bracketed(tokens)
            if isinstance(name, tuple):
                return name[0]
        elif token == ".":  # noqa: S105 (a dot)
            if not tokens:
                return "does not refer to a valid field"
            name = tokens.pop(0)
        else:
            return f"expected [ or . but got: {token}"
        known = (here or {}).get("properties")
        additional = (here or {}).get("additionalProperties")
        if known:
            if name not in known:
                return "does not refer to a valid field"
            here = known[name]
        elif additional is not None:
            here = additional if isinstance(additional, dict) else None
        else:
            return "does not refer to a valid field"
        names.append(name)
    return Field(tuple(names), here)


def _bracketed(tokens: list[str]) -> str | tuple[str]:
    """The name in `'name'` and the bracket after it; a tuple holds what is wrong."""
    if not tokens:
        return ("unexpected end of JSON path",)
    quoted = tokens.pop(0)
    if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
        return (f"expected single quoted string but got {quoted}",)
    if not tokens:
        return ("unexpected end of JSON path",)
    closing = tokens.pop(0)
    if closing != "]":
        return (f"expected ] but got {closing}",)
    return quoted[1:-1].replace("\\'", "'").replace("\\\\", "\\")


def _path_tokens(path: str) -> list[str]:
    """`.`, `[`, `]`, quoted strings, and the text between them."""
    tokens: list[str] = []
    at = 0
    while at < len(path):
        if path[at] in ".[]":
            end = at + 1
        elif path[at] == "'":
            end = at + 1
            while end < len(path) and not (path[end] == "'" and path[end - 1] != "\\"):
                end += 1
            end = min(end + 1, len(path))
        else:
            end = at
            while end < len(path) and path[end] not in ".[]":
                end += 1
        tokens.append(path[at:end])
        at = end
    return tokens


def unrecognized_formats(schema: Object) -> list[str]:
    """Formats that are not checked, in the order of the schema (upstream: GetUnrecognizedFormats)."""
    found: list[str] = []

    def look(one: Object) -> bool:
        name = one.get("format")
        if name and not format_is_known(one.get("type") or "", name):
            found.append(name)
        return False

    anywhere(schema, look)
    return found
