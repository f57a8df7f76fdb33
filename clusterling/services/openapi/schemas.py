"""The schemas that OpenAPI documents are made of: upstream's for built-in kinds, a CRD's own in published form.

Built-in kinds come from the published definitions, which refer to each other by name; a document carries those
it reaches. A custom kind is one schema without references but to metadata.

Upstream: apiextensions-apiserver/pkg/controller/openapi/{builder/builder.go,v2/conversion.go},
apiextensions-apiserver/pkg/apiserver/schema/{kubeopenapi,unfold}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from clusterling.machinery.meta import Object
from clusterling.machinery.steps import PIECES, Steps
from clusterling.registry.resource import Served

V3_PREFIX: Final = "#/components/schemas/"
V2_PREFIX: Final = "#/definitions/"

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
SCALE: Final = "io.k8s.api.autoscaling.v1.Scale"

_CONVENTIONS: Final = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION: Final = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    "schemas to the latest internal value, and may reject unrecognized values. "
    f"More info: {_CONVENTIONS}#resources"
)
_KIND: Final = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
    "endpoint the client submits requests to. Cannot be updated. In CamelCase. "
    f"More info: {_CONVENTIONS}#types-kinds"
)
_METADATA: Final = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"
_LIST_METADATA: Final = f"Standard list metadata. More info: {_CONVENTIONS}#types-kinds"
_EMBEDDED_API_VERSION: Final = f"apiVersion defines the versioned schema of this representation of an object. More info: {_CONVENTIONS}#resources"
_EMBEDDED_KIND: Final = (
    "kind is a string value representing the type of this object. In CamelCase. "
    f"More info: {_CONVENTIONS}#types-kinds"
)

_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_JUNCTIONS: Final = ("allOf", "anyOf", "oneOf", "not")
GVK: Final = "x-kubernetes-group-version-kind"
PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_IN_ALL_VERSIONS: Final = frozenset({f"{META}DeleteOptions", f"{META}WatchEvent"})


class Definitions:
    """The published schemas of built-in kinds by name, in OpenAPI v3's form.

    `source` maps `io.k8s.api.core.v1.ConfigMap` to its schema; `published` gives it as documents show it (with its
    descriptions), `name_of` the name for a group, version and kind (KeyError for one that is not published).
    `fingerprint` changes whenever what is published does. `option_versions`: the apiVersions that OpenAPI v2 tells of what
    all groups share.
    """

    def __init__(
        self,
        source: Mapping[str, Object],
        fingerprint: str,
        *,
        name_of: Callable[[str, str, str], str],
        published: Callable[[str], Object] | None = None,
        option_versions: Sequence[str] = (),
    ) -> None:
        self.source = source
        self.option_versions = option_versions
        self.fingerprint = fingerprint
        self.published = published or source.__getitem__
        self._name_of = name_of
        self._references: dict[str, tuple[str, ...]] = {}

    def name(self, group: str, version: str, kind: str) -> str | None:
        """The definition of a kind, None where upstream publishes none."""
        try:
            return self._name_of(group, version, kind)
        except KeyError:
            return None

    def reached(self, names: Iterable[str]) -> list[str]:
        """The names and all that they refer to, sorted. Names that are not defined are left out."""
        found: set[str] = set()
        waiting = [name for name in names if name in self.source]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self._refers_to(name))
        return sorted(found)

    def _refers_to(self, name: str) -> tuple[str, ...]:
        known = self._references.get(name)
        if known is None:
            found = {one for one in _references(self.source[name]) if one in self.source}
            known = self._references[name] = tuple(sorted(found))
        return known


@cache
def builtin_definitions() -> Definitions:
    """Those of the Kubernetes version that is served, from the compiled data."""
    from clusterling.packs import builtin

    described = "description" in builtin.published("io.k8s.api.core.v1.ConfigMap")
    return Definitions(
        builtin.definitions,
        "described" if described else "bare",
        name_of=builtin.definition_of,
        published=builtin.published,
        option_versions=builtin.option_versions(),
    )


def is_of_versions(name: str) -> bool:
    """The definition names the apiVersions of the document that it stands in."""
    return name in _IN_ALL_VERSIONS


def of_versions(name: str, schema: Object, versions: Iterable[str]) -> Object:
    """A definition as it is told in a document of these apiVersions: the options and events that all groups share are
    registered in each."""
    if not is_of_versions(name):
        return schema
    kind = name.removeprefix(META)
    split = [one.rpartition("/") for one in versions]
    told = [{"group": group, "kind": kind, "version": version} for group, _, version in split]
    return schema | {GVK: told}


def _references(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            reference = one.get("$ref")
            if isinstance(reference, str):
                yield reference.removeprefix(V3_PREFIX)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


@cache
def model_name(group: str, version: str, kind: str) -> str:
    """A custom kind's definition: `com.example.v1.Widget`."""
    return f"{'.'.join(reversed(group.split('.')))}.{version}.{kind}"


def kind_names(served: Served, definitions: Definitions) -> tuple[str, str]:
    """The definitions of the kind and of its list."""
    group, version, names = served.group, served.version.name, served.resource.names
    known = (names.kind, names.list_kind)
    if not served.resource.builtin:
        # A CRD may define a kind that upstream has too (`apps/v1` Deployment), and is what counts then.
        return model_name(group, version, known[0]), model_name(group, version, known[1])
    told = [definitions.name(group, version, kind) or model_name(group, version, kind) for kind in known]
    return told[0], told[1]


def _reference(name: str, description: str, *, v2: bool) -> Object:
    if v2:
        return {"description": description, "$ref": V2_PREFIX + name}
    return {"description": description, "allOf": [{"$ref": V3_PREFIX + name}]}


def _extensions(served: Served, kind: str) -> Object:
    told: Object = {GVK: [{"group": served.group, "kind": kind, "version": served.version.name}]}
    if served.version.selectable_fields:
        paths = [path.removeprefix(".") for path in served.version.selectable_fields]
        told["x-kubernetes-selectable-fields"] = [{"fieldPath": path} for path in paths]
    return told


def custom_kind(served: Served, *, v2: bool) -> Steps[Object]:
    """The published schema of a custom kind, from the schema its CRD gives (not changed; parts are shared)."""
    extensions = _extensions(served, served.kind)
    yield from served.version.schema.reading()
    source = served.version.schema.source
    if v2 and source.get(PRESERVE):
        # kubectl would take properties for all there may be.
        return {"type": "object"} | extensions
    schema = yield from (_publish_v2(source) if v2 else _publish(source))
    properties = {
        **schema.get("properties", {}),
        "apiVersion": {"description": _API_VERSION, "type": "string"},
        "kind": {"description": _KIND, "type": "string"},
        "metadata": _reference(f"{META}ObjectMeta", _METADATA, v2=v2),
    }
    return {**schema, "properties": properties, **extensions}


def custom_list(served: Served, *, v2: bool) -> Object:
    """The published schema of a custom kind's list."""
    names = served.resource.names
    prefix = V2_PREFIX if v2 else V3_PREFIX
    item = prefix + model_name(served.group, served.version.name, names.kind)
    return {
        "description": f"{names.list_kind} is a list of {names.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string"},
            "items": {
                "description": f"List of {names.plural}. More info: {_CONVENTIONS}",
                "type": "array",
                "items": {"$ref": item},
            },
            "kind": {"description": _KIND, "type": "string"},
            "metadata": _reference(f"{META}ListMeta", _LIST_METADATA, v2=v2),
        },
        **_extensions(served, names.list_kind),
    }


def _publish(schema: Object) -> Steps[Object]:
    """A structural schema as OpenAPI v3: unfolded, embedded resources with their head. Shares what stays the same."""
    changed: Object = {}
    properties: Object = schema.get("properties") or {}
    if properties:
        published = yield from _each(_publish, properties)
        if any(published[name] is not properties[name] for name in properties):
            changed["properties"] = published
    for key in ("items", "additionalProperties"):
        one = schema.get(key)
        if isinstance(one, dict):
            published_one = yield from _publish(one)
            if published_one is not one:
                changed[key] = published_one
    if schema.get(INT_OR_STRING):
        changed |= _unfolded(schema)
    if schema.get(EMBEDDED):
        changed |= _embedded(schema, changed.get("properties", properties), v2=False)
    return schema | changed if changed else schema


def _each(publish: Callable[[Object], Steps[Object]], properties: Object) -> Steps[Object]:
    """All of the properties, published, so many in a step."""
    published: Object = {}
    for at, (name, one) in enumerate(properties.items()):
        if not at % PIECES:
            yield
        published[name] = yield from publish(one)
    return published


def _unfolded(schema: Object) -> Object:
    any_of, all_of = schema.get("anyOf"), schema.get("allOf") or []
    if any_of == _INT_OR_STRING or (all_of and all_of[0].get("anyOf") == _INT_OR_STRING):
        return {}
    if not any_of:
        return {"anyOf": _INT_OR_STRING}
    return {"allOf": [{"anyOf": _INT_OR_STRING}, *all_of]}


def _embedded(schema: Object, properties: Object, *, v2: bool) -> Object:
    required = list(schema.get("required") or ())
    return {
        "properties": {
            **properties,
            "apiVersion": {"description": _EMBEDDED_API_VERSION, "type": "string"},
            "kind": {"description": _EMBEDDED_KIND, "type": "string"},
            "metadata": _reference(f"{META}ObjectMeta", _METADATA, v2=v2),
        },
        "required": [*required, *(name for name in ("kind", "apiVersion") if name not in required)],
    }


def _publish_v2(schema: Object) -> Steps[Object]:
    """A structural schema as OpenAPI v2 has words for it: kubectl breaks on more (v2/conversion.go)."""
    dropped = {*_JUNCTIONS, "nullable", "default", "items", "properties", "additionalProperties"}
    told: Object = {key: value for key, value in schema.items() if key not in dropped}
    nullable, preserve = bool(schema.get("nullable")), bool(schema.get(PRESERVE))
    properties: Object = {} if nullable or preserve else schema.get("properties") or {}
    items = None if nullable or preserve else schema.get("items")
    untyped = (
        nullable
        or (items is None and told.get("type") == "array")
        or (preserve and told.get("type") == "object")
    )
    if untyped:
        told.pop("type", None)
    additional = schema.get("additionalProperties")
    required = told.pop("required", None) or []
    if isinstance(additional, dict) and additional.get("nullable"):
        required = []
    required = [name for name in required if not properties.get(name, {}).get("nullable")]
    if required:
        told["required"] = required
    if properties:
        told["properties"] = yield from _each(_publish_v2, properties)
    if isinstance(items, dict):
        told["items"] = yield from _publish_v2(items)
    if additional is not None:
        told["additionalProperties"] = (
            (yield from _publish_v2(additional)) if isinstance(additional, dict) else additional
        )
    if schema.get(EMBEDDED) and not preserve:
        told |= _embedded(told, told.get("properties", {}), v2=True)
    return told


def definition_v2(schema: Any) -> Any:
    """A published v3 definition in v2's words: plain references, no defaults, one type for unions of scalars."""
    if isinstance(schema, list):
        return [definition_v2(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told: Object = {}
    for key, value in schema.items():
        if key in ("default", "nullable", "anyOf", "oneOf", "not"):
            continue
        if key == "allOf" and len(value) == 1 and "$ref" in value[0]:
            told["$ref"] = V2_PREFIX + value[0]["$ref"].removeprefix(V3_PREFIX)
        elif key == "$ref":
            told["$ref"] = V2_PREFIX + value.removeprefix(V3_PREFIX)
        elif key == "properties":
            told[key] = {name: definition_v2(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties", "allOf"):
            told[key] = definition_v2(value)
        else:
            told[key] = value
    # IntOrString and Quantity: v2 knows no unions, and publishes the string.
    if "oneOf" in schema and "type" not in told:
        told["type"] = "string"
    return told
